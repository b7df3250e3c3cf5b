import { Code, type ConnectError } from "@connectrpc/connect";
import { describe, expect, test } from "vitest";
import { Refusal } from "../../src/domain/errors.ts";
import { fromLibrary, fromRefusal } from "../../src/rpc/errors.ts";
import { GuardedStream } from "../../src/rpc/streams/guarded-stream.ts";
import { MessageReader } from "../../src/rpc/streams/message-reader.ts";
import { SourceStream, sourceOf } from "../../src/rpc/streams/message-source.ts";

const CANCELLED = fromLibrary(Code.Canceled, "");

const ONE = { number: 1 };
const TWO = { number: 2 };

/** A handler's output behind its guard, as a door that iterates sees it. */
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
  test("passes everything and is over once", async () => {
    const { stream, overs } = guarded(twoThen(async () => undefined));
    const got: object[] = [];
    for await (const value of stream) got.push(value);
    expect(got).toEqual([ONE, TWO]);
    await expect(stream.next()).resolves.toMatchObject({ done: true });
    expect(overs).toEqual([undefined]);
  });

  test("turns what its handler throws into an error with details", async () => {
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

  test("lets its handler clean up when nobody wants more", async () => {
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
  test("asks for one message at a time", async () => {
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

  test("takes a message that is there already", async () => {
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
