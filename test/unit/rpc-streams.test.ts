import { Code, type ConnectError } from "@connectrpc/connect";
import { describe, expect, test } from "vitest";
import { type InputListener, listenTo } from "../../packages/connect-grpc-js/src/message-input.ts";
import { MessageReader } from "../../packages/connect-grpc-js/src/message-reader.ts";
import { SourceStream, sourceOf } from "../../packages/connect-grpc-js/src/message-source.ts";
import { Refusal } from "../../src/domain/errors.ts";
import { fromLibrary, fromRefusal } from "../../src/rpc/errors/errors.ts";
import { GuardedStream } from "../../src/rpc/pipeline/guarded-stream.ts";
import { PushedInput } from "../support/pushed-input.ts";
import { until } from "../support/until.ts";

const CANCELLED = fromLibrary(Code.Canceled, "");

const ONE = { number: 1 };
const TWO = { number: 2 };

/** A handler's output behind its guard, as an iterating listener reads it. */
function guarded<T extends object>(source: AsyncIterable<T>) {
  const overs: (ConnectError | undefined)[] = [];
  const guard = new GuardedStream<T>((error) => overs.push(error));
  guard.start(sourceOf(source));
  return { stream: new SourceStream(guard), guard, overs };
}

async function* twoThen(end: () => Promise<void>) {
  yield ONE;
  yield TWO;
  await end();
}

describe("a guarded stream", () => {
  test("passes on every message and ends once", async () => {
    const { stream, overs } = guarded(twoThen(async () => undefined));
    const got: object[] = [];
    for await (const value of stream) got.push(value);
    expect(got).toEqual([ONE, TWO]);
    await expect(stream.next()).resolves.toMatchObject({ done: true });
    expect(overs).toEqual([undefined]);
  });

  test("maps an exception of its handler to an error with details", async () => {
    const { stream, overs } = guarded(twoThen(() => Promise.reject(new Refusal("WATCHER_TOO_SLOW", "read faster"))));
    await stream.next();
    await stream.next();
    await expect(stream.next()).rejects.toMatchObject({ code: Code.ResourceExhausted, rawMessage: "read faster" });
    await expect(stream.next()).rejects.toMatchObject({ code: Code.ResourceExhausted });
    expect(overs).toHaveLength(1);
  });

  test("ends at once when stopped, while its handler waits for ever", async () => {
    const { stream, guard, overs } = guarded(twoThen(() => new Promise(() => undefined)));
    await stream.next();
    await stream.next();
    const waiting = stream.next();
    guard.stop(CANCELLED);
    await expect(waiting).rejects.toBe(CANCELLED);
    guard.stop(fromRefusal(new Refusal("DRAINING", "")));
    expect(overs).toEqual([CANCELLED]);
  });

  test("ends when it is stopped while its handler waits for input", async () => {
    const guard = new GuardedStream<object>(() => undefined);
    guard.start({
      take: () => {
        guard.stop(CANCELLED);
        return undefined;
      },
      over: false,
      listen: () => undefined,
      leave: () => undefined,
    });
    await expect(new SourceStream(guard).next()).rejects.toBe(CANCELLED);
  });

  test("lets its handler clean up when its reader closes it", async () => {
    let cleaned = false;
    async function* source() {
      try {
        yield ONE;
        yield TWO;
      } finally {
        cleaned = true;
      }
    }
    const { stream, overs } = guarded(source());
    for await (const _ of stream) break;
    expect(cleaned).toBe(true);
    expect(overs).toEqual([undefined]);
  });
});

describe("a message reader", () => {
  test("requests one message at a time", async () => {
    let asked = 0;
    const reader = new MessageReader<number>(() => {
      asked += 1;
    });
    const first = reader.next();
    expect(asked).toBe(1);
    reader.push(7);
    await expect(first).resolves.toEqual({ done: false, value: 7 });
    expect(asked).toBe(1);
    const second = reader.next();
    reader.end();
    await expect(second).resolves.toMatchObject({ done: true });
    await expect(reader.next()).resolves.toMatchObject({ done: true });
    expect(asked).toBe(2);
  });

  test("accepts a message that is there already", async () => {
    const reader: MessageReader<number> = new MessageReader<number>(() => reader.push(1));
    await expect(reader.next()).resolves.toEqual({ done: false, value: 1 });
  });

  test("throws when the call broke off, now and later", async () => {
    const reader = new MessageReader<number>(() => undefined);
    const waiting = reader.next();
    reader.fail(CANCELLED);
    await expect(waiting).rejects.toBe(CANCELLED);
    await expect(reader.next()).rejects.toBe(CANCELLED);
  });

  test("does not fail once it has ended", async () => {
    const reader = new MessageReader<number>(() => undefined);
    reader.end();
    reader.fail(CANCELLED);
    await expect(reader.next()).resolves.toMatchObject({ done: true });
  });
});

/** Records events, and accepts `room` messages before it pauses the sender. */
class Ear implements InputListener<number> {
  readonly heard: unknown[] = [];
  room: number;

  constructor(room = Number.POSITIVE_INFINITY) {
    this.room = room;
  }

  message(message: number): boolean {
    this.heard.push(message);
    this.room -= 1;
    return this.room > 0;
  }

  end(): void {
    this.heard.push("end");
  }

  fail(reason: unknown): void {
    this.heard.push(reason);
  }
}

describe("a message reader with a subscriber", () => {
  test("requests the next message while there is capacity", () => {
    let asked = 0;
    const reader = new MessageReader<number>(() => {
      asked += 1;
    });
    const ear = new Ear(2);
    const input = listenTo(reader, ear);
    expect(asked).toBe(1);
    reader.push(1);
    expect(asked).toBe(2);
    reader.push(2);
    expect(asked).toBe(2);
    ear.room = 1;
    input.resume();
    expect(asked).toBe(3);
    reader.end();
    reader.end();
    reader.fail(CANCELLED);
    expect(ear.heard).toEqual([1, 2, "end"]);
  });

  test("delivers a hundred thousand available messages without growing the stack", () => {
    let left = 100_000;
    const reader: MessageReader<number> = new MessageReader<number>(() => {
      left -= 1;
      if (left >= 0) reader.push(left);
      else reader.end();
    });
    const ear = new Ear();
    listenTo(reader, ear);
    expect(ear.heard).toHaveLength(100_001);
    expect(ear.heard.at(-1)).toBe("end");
  });

  test("reports a broken call once, also to late subscribers, and nothing to former ones", () => {
    const early = new Ear();
    const late = new Ear();
    const gone = new Ear();
    const reader = new MessageReader<number>(() => undefined);
    listenTo(reader, early);
    reader.fail(CANCELLED);
    reader.fail(CANCELLED);
    listenTo(reader, late);
    const left = new MessageReader<number>(() => undefined);
    listenTo(left, gone).leave();
    left.push(1);
    left.end();
    expect([early.heard, late.heard, gone.heard]).toEqual([[CANCELLED], [CANCELLED], []]);
  });
});

describe("an iterable with a subscriber", () => {
  test("delivers its messages one by one, up to the capacity, and its end", async () => {
    const input = new PushedInput<number>();
    const ear = new Ear(2);
    const listening = listenTo(input, ear);
    input.send(1, 2, 3);
    await until("the room is full", () => ear.heard.length === 2);
    await new Promise((resolve) => setImmediate(resolve));
    expect(ear.heard).toEqual([1, 2]);
    ear.room = 9;
    listening.resume();
    await until("it goes on", () => ear.heard.length === 3);
    input.fail(CANCELLED);
    await until("it broke off", () => ear.heard.length === 4);
    expect(ear.heard).toEqual([1, 2, 3, CANCELLED]);
  });

  test("stays open when its subscriber leaves", async () => {
    const input = new PushedInput<number>();
    const ear = new Ear();
    listenTo(input, ear).leave();
    input.send(1);
    await new Promise((resolve) => setImmediate(resolve));
    expect(ear.heard).toEqual([]);
    input.send(2);
    await expect(input.next()).resolves.toEqual({ done: false, value: 2 });
  });
});
