import { expect } from "vitest";
import { createTestDatabase } from "./cluster.ts";
import { DatabaseProxy } from "./gate-proxy.ts";
import { openReplica, type Replica } from "./replica.ts";
import type { TestStream } from "./replica-stream.ts";
import { until } from "./until.ts";

/** Two replicas of one database, one of them behind a proxy that can be cut. They end with `undo`. */
export async function openPair(
  undo: AsyncDisposableStack,
  pace: { readonly intervalMs: number },
): Promise<{ fine: Replica; cut: Replica; proxy: DatabaseProxy }> {
  const { url } = undo.use(await createTestDatabase());
  const proxy = undo.use(await DatabaseProxy.open(url));
  const fine = undo.use(await openReplica(url, pace));
  const cut = undo.use(await openReplica(proxy.url, pace));
  // So that its end does not wait for its database.
  undo.defer(() => proxy.mend());
  return { fine, cut, proxy };
}

/** Opens a stream as a client does; undefined when it is rejected. */
export function tryStream(at: Replica, options: Parameters<Replica["stream"]>[0] = {}): TestStream | undefined {
  try {
    return at.stream(options);
  } catch (error) {
    expect(error).toMatchObject({ reason: "DATABASE_UNAVAILABLE" });
    return undefined;
  }
}

/** Until the replica rejects new streams. */
export async function untilRefused(at: Replica): Promise<void> {
  await until("new streams are refused", () => {
    const stream = tryStream(at);
    stream?.close();
    return stream === undefined;
  });
}
