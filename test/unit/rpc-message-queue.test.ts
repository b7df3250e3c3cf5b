import { setImmediate as nextTurn } from "node:timers/promises";
import { deflateSync, gzipSync } from "node:zlib";
import { Code, ConnectError } from "@connectrpc/connect";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Encoding } from "../../src/rpc/sockets/inflate.ts";
import { type MessageInput, MessageQueue } from "../../src/rpc/sockets/message-queue.ts";
import { ReceiveBudget } from "../../src/rpc/sockets/receive-budget.ts";
import { until } from "../support/until.ts";

const MEBIBYTE = 1_048_576;

function queueOf(limits: { totalBytes?: number; connectionBytes?: number } = {}): MessageQueue {
  const { totalBytes = 256 * MEBIBYTE, connectionBytes = 32 * MEBIBYTE } = limits;
  return new MessageQueue(new ReceiveBudget({ totalBytes, connectionBytes, messageMs: 1_000 }));
}

/** A large member of gzip that decompresses to nothing. */
function largeNothing(): Buffer {
  const nothing = gzipSync("");
  return Buffer.concat(Array.from({ length: 40_000 }, () => nothing));
}

describe("a message", () => {
  test("that is large waits for its turn, however small its announced size is", async () => {
    const queue = queueOf();
    const input = queue.input({}, "192.0.2.1", false);
    const read = input.read(largeNothing(), "gzip");
    expect(read).toBeInstanceOf(Promise);
    expect(await read).toHaveLength(0);
    input.close();
    expect(queue.budget.total).toBe(0);
  });

  test("of a call that ended while it waited is dropped", async () => {
    const queue = queueOf();
    const large = Buffer.alloc(MEBIBYTE);
    const patient = queue.input({}, "192.0.2.1", false);
    const first = patient.read(large, undefined);
    const connection = {};
    for (let n = 0; n < 1_000; n += 1) {
      const input = queue.input(connection, "192.0.2.2", false);
      void input.read(large, undefined);
      input.close();
    }
    expect(queue.size).toBe(1);
    expect(await first).toHaveLength(MEBIBYTE);
    patient.close();
    expect(queue.budget.total).toBe(0);
  });
});

const PACKED: readonly (readonly [Encoding | undefined, Buffer])[] = [
  [undefined, Buffer.alloc(10)],
  [undefined, Buffer.alloc(200_000)],
  ["gzip", Buffer.alloc(0)],
  ["gzip", gzipSync("")],
  ["gzip", gzipSync(Buffer.alloc(1_000))],
  ["gzip", gzipSync(Buffer.alloc(300_000))],
  ["gzip", gzipSync(Buffer.alloc(2 * MEBIBYTE))],
  // The second announces 10 bytes, and both become 300,010.
  ["gzip", Buffer.concat([gzipSync(Buffer.alloc(300_000)), gzipSync(Buffer.alloc(10))])],
  ["gzip", Buffer.concat([gzipSync(Buffer.alloc(2 * MEBIBYTE)), gzipSync(Buffer.alloc(10))])],
  ["gzip", Buffer.concat([gzipSync(Buffer.alloc(50_000)), Buffer.from("behind its end")])],
  ["gzip", gzipSync(Buffer.alloc(300_000)).subarray(0, 100)],
  ["gzip", Buffer.alloc(5_000, "no gzip")],
  ["gzip", largeNothing()],
  ["deflate", deflateSync(Buffer.alloc(300_000))],
  ["deflate", deflateSync(Buffer.alloc(2 * MEBIBYTE))],
  ["deflate", Buffer.alloc(400, "no deflate")],
];

const calls = fc.array(
  fc.record({
    connection: fc.nat(3),
    streams: fc.boolean(),
    messages: fc.array(fc.nat(PACKED.length - 1), { minLength: 1, maxLength: 3 }),
    /** The turns of the event loop until the call ends; -1: as soon as it is queued. */
    endsAfter: fc.integer({ min: -1, max: 30 }),
    withError: fc.boolean(),
  }),
  { minLength: 1, maxLength: 24 },
);

test("releases all counted bytes, however calls end, and continues", { timeout: 60_000 }, async () => {
  await fc.assert(
    fc.asyncProperty(calls, async (plan) => {
      const queue = queueOf({ totalBytes: 8 * MEBIBYTE, connectionBytes: 3 * MEBIBYTE });
      const connections = [{}, {}, {}, undefined];
      const readAll = async (input: MessageInput, messages: readonly number[]): Promise<void> => {
        for (const index of messages) {
          const [encoding, bytes] = PACKED[index] ?? [undefined, Buffer.alloc(0)];
          try {
            await input.read(bytes, encoding);
          } catch (error) {
            if (!(error instanceof ConnectError)) throw error;
            return;
          }
          if (input.closed) return;
        }
      };
      const ended = plan.map(async ({ connection, streams, messages, endsAfter, withError }) => {
        const input = queue.input(connections[connection], `192.0.2.${connection}`, streams);
        const reading = readAll(input, messages);
        const close = (): void => input.close(withError ? new ConnectError("over", Code.Canceled) : undefined);
        if (endsAfter >= 0) {
          for (let turn = 0; turn < endsAfter; turn += 1) await nextTurn();
          // Half of the calls end by themselves.
          if (endsAfter % 2 === 0) await Promise.race([reading, new Promise((over) => setTimeout(over, 2_000))]);
        }
        close();
      });
      await Promise.all(ended);
      await until("nothing waits", () => queue.size === 0);
      expect(queue.budget.total).toBe(0);
      const next = queue.input(connections[0], "192.0.2.9", false);
      expect(await next.read(Buffer.alloc(200_000), undefined)).toHaveLength(200_000);
      next.close();
      expect(queue.budget.total).toBe(0);
    }),
    { numRuns: 30 },
  );
});
