import { Code, ConnectError } from "@connectrpc/connect";
import { describe, expect, test, vi } from "vitest";
import { type MessageListener, subscribe } from "../../src/message-listener.ts";
import { MessageReader } from "../../src/message-reader.ts";
import { type MessageSource, SourceStream, sourceOf } from "../../src/message-source.ts";

const CANCELLED = new ConnectError("cancelled", Code.Canceled);

const turn = () => new Promise((resolve) => setImmediate(resolve));

describe("a message reader as an iterator", () => {
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

  test("takes a message that arrives while it asks", async () => {
    const reader: MessageReader<number> = new MessageReader<number>(() => reader.push(1));
    await expect(reader.next()).resolves.toEqual({ done: false, value: 1 });
  });

  test("throws when the call breaks off, now and later", async () => {
    const reader = new MessageReader<number>(() => undefined);
    const waiting = reader.next();
    reader.fail(CANCELLED);
    await expect(waiting).rejects.toBe(CANCELLED);
    await expect(reader.next()).rejects.toBe(CANCELLED);
  });

  test("does not fail after its end", async () => {
    const reader = new MessageReader<number>(() => undefined);
    reader.end();
    reader.fail(CANCELLED);
    await expect(reader.next()).resolves.toMatchObject({ done: true });
  });

  test("rejects a second next() while the first one waits", async () => {
    const reader = new MessageReader<number>(() => undefined);
    const first = reader.next();
    await expect(reader.next()).rejects.toThrow("before the last promise settled");
    reader.end();
    await expect(first).resolves.toMatchObject({ done: true });
  });
});

/** Records what it gets, and takes `capacity` messages before it asks for a pause. */
class Recorder implements MessageListener<number> {
  readonly got: unknown[] = [];
  capacity: number;

  constructor(capacity = Number.POSITIVE_INFINITY) {
    this.capacity = capacity;
  }

  message(message: number): boolean {
    this.got.push(message);
    this.capacity -= 1;
    return this.capacity > 0;
  }

  end(): void {
    this.got.push("end");
  }

  fail(reason: unknown): void {
    this.got.push(reason);
  }
}

describe("a message reader with a listener", () => {
  test("asks for the next message while the listener has capacity", () => {
    let asked = 0;
    const reader = new MessageReader<number>(() => {
      asked += 1;
    });
    const recorder = new Recorder(2);
    const subscription = subscribe(reader, recorder);
    expect(asked).toBe(1);
    reader.push(1);
    expect(asked).toBe(2);
    reader.push(2);
    expect(asked).toBe(2);
    recorder.capacity = 1;
    subscription.resume();
    expect(asked).toBe(3);
    reader.end();
    reader.end();
    reader.fail(CANCELLED);
    expect(recorder.got).toEqual([1, 2, "end"]);
  });

  test("passes a hundred thousand waiting messages without recursion", () => {
    let left = 100_000;
    const reader: MessageReader<number> = new MessageReader<number>(() => {
      left -= 1;
      if (left >= 0) reader.push(left);
      else reader.end();
    });
    const recorder = new Recorder();
    subscribe(reader, recorder);
    expect(recorder.got).toHaveLength(100_001);
    expect(recorder.got.at(-1)).toBe("end");
  });

  test("reports a failure once, also to a listener that comes later", () => {
    const early = new Recorder();
    const late = new Recorder();
    const reader = new MessageReader<number>(() => undefined);
    subscribe(reader, early);
    reader.fail(CANCELLED);
    reader.fail(CANCELLED);
    subscribe(reader, late);
    expect([early.got, late.got]).toEqual([[CANCELLED], [CANCELLED]]);
  });

  test("reports nothing after unsubscribe", () => {
    const recorder = new Recorder();
    const reader = new MessageReader<number>(() => undefined);
    subscribe(reader, recorder).unsubscribe();
    reader.push(1);
    reader.end();
    expect(recorder.got).toEqual([]);
  });
});

describe("any other iterable with a listener", () => {
  function pushed() {
    let controller: ReadableStreamDefaultController<number> | undefined;
    const iterator = new ReadableStream<number>({
      start: (started) => {
        controller = started;
      },
    }).values();
    return {
      iterator,
      messages: { [Symbol.asyncIterator]: () => iterator },
      send: (...values: number[]) => {
        for (const value of values) controller?.enqueue(value);
      },
      end: () => controller?.close(),
      fail: (reason: unknown) => controller?.error(reason),
    };
  }

  test("gives its messages one by one while there is capacity, and its failure", async () => {
    const { messages, send, fail } = pushed();
    const recorder = new Recorder(2);
    const subscription = subscribe(messages, recorder);
    send(1, 2, 3);
    await vi.waitUntil(() => recorder.got.length === 2);
    await turn();
    expect(recorder.got).toEqual([1, 2]);
    recorder.capacity = 9;
    subscription.resume();
    await vi.waitUntil(() => recorder.got.length === 3);
    fail(CANCELLED);
    await vi.waitUntil(() => recorder.got.length === 4);
    expect(recorder.got).toEqual([1, 2, 3, CANCELLED]);
  });

  test("reports its end", async () => {
    const { messages, send, end } = pushed();
    const recorder = new Recorder();
    subscribe(messages, recorder);
    send(1);
    end();
    await vi.waitUntil(() => recorder.got.length === 2);
    expect(recorder.got).toEqual([1, "end"]);
  });

  test("stays open after unsubscribe", async () => {
    const { iterator, messages, send } = pushed();
    const recorder = new Recorder();
    subscribe(messages, recorder).unsubscribe();
    send(1);
    await turn();
    expect(recorder.got).toEqual([]);
    send(2);
    await expect(iterator.next()).resolves.toEqual({ done: false, value: 2 });
  });
});

describe("a source of messages", () => {
  class Queue implements MessageSource<object> {
    readonly waiting: object[] = [];
    done = false;
    failure: unknown;
    closed = 0;
    notify: () => void = () => undefined;

    take(): object | undefined {
      if (this.failure !== undefined) throw this.failure;
      return this.waiting.shift();
    }

    onReadable(listener: () => void): void {
      this.notify = listener;
    }

    close(): void {
      this.closed += 1;
    }
  }

  test("is an iterable, which waits for messages, the end and a failure", async () => {
    const [one, two] = [{ number: 1 }, { number: 2 }];
    const queue = new Queue();
    const stream = new SourceStream(queue);
    expect(sourceOf(stream)).toBe(queue);
    queue.waiting.push(one);
    await expect(stream.next()).resolves.toEqual({ done: false, value: one });
    const waiting = stream.next();
    await expect(stream.next()).rejects.toThrow("before the last promise settled");
    queue.notify();
    queue.waiting.push(two);
    queue.notify();
    await expect(waiting).resolves.toEqual({ done: false, value: two });
    const last = stream.next();
    queue.done = true;
    queue.notify();
    await expect(last).resolves.toMatchObject({ done: true });
    queue.failure = CANCELLED;
    await expect(stream.next()).rejects.toBe(CANCELLED);
  });

  test("is closed by a consumer that returns or throws", async () => {
    const queue = new Queue();
    const stream = new SourceStream(queue);
    const waiting = stream.next();
    await stream.return();
    await expect(waiting).resolves.toMatchObject({ done: true });
    const failing = stream.next();
    await expect(Promise.all([failing, stream.throw(CANCELLED)])).rejects.toBe(CANCELLED);
    expect(queue.closed).toBe(2);
  });

  test("is made of any iterable, and asks for a message when the one before is taken", async () => {
    let asked = 0;
    let cleanedUp = false;
    async function* numbers() {
      try {
        for (;;) {
          asked += 1;
          yield { number: asked };
        }
      } finally {
        cleanedUp = true;
      }
    }
    const source = sourceOf(numbers());
    let readable = 0;
    source.onReadable(() => {
      readable += 1;
    });
    expect([source.take(), asked]).toEqual([undefined, 1]);
    await vi.waitUntil(() => readable === 1);
    expect([source.take(), source.take(), asked]).toEqual([{ number: 1 }, undefined, 2]);
    source.close();
    await vi.waitUntil(() => cleanedUp);
    expect(source.done).toBe(true);
  });
});
