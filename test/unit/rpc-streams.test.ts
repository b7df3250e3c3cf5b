import { Code, type ConnectError } from "@connectrpc/connect";
import { SourceStream, sourceOf } from "@harborforge/connect-grpc-js";
import { describe, expect, test } from "vitest";
import { Refusal } from "../../src/domain/errors.ts";
import { fromLibrary, fromRefusal } from "../../src/rpc/errors/error-table.ts";
import { GuardedStream } from "../../src/rpc/pipeline/guarded-stream.ts";

const CANCELLED = fromLibrary(Code.Canceled, "");

const ONE = { number: 1 };
const TWO = { number: 2 };

/** A handler's output behind its guard, as a listener that iterates sees it. */
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

  test("ends when stopped while its handler is asked for more, and has nothing", async () => {
    const guard = new GuardedStream<object>(() => undefined);
    guard.start({
      take: () => {
        guard.stop(CANCELLED);
        return undefined;
      },
      done: false,
      onReadable: () => undefined,
      close: () => undefined,
    });
    await expect(new SourceStream(guard).next()).rejects.toBe(CANCELLED);
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
