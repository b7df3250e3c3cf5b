import { createRouterTransport } from "@connectrpc/connect";
import { afterEach, describe, expect, it, vi } from "vitest";
import { AgentService } from "../../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { Refusal } from "../../../../src/domain/errors.ts";
import { createFakeBackend, type FakeBackend } from "../../../../test/support/fake-backend.ts";
import { createInMemoryClients } from "../../../../test/support/in-memory-clients.ts";
import { watchAgents } from "../../src/watch/browser-watch.ts";
import { type WatchEvent, type WatchOptions, watchThrough } from "../../src/watch/watch-agents.ts";

/** Watches until `enough` returns true. */
async function watch(
  backend: FakeBackend,
  enough: (events: readonly WatchEvent[]) => boolean,
  options: WatchOptions = {},
) {
  const reconnect = vi.fn();
  const clients = { ...createInMemoryClients(backend), reconnect };
  const stop = new AbortController();
  const events: WatchEvent[] = [];
  for await (const event of watchThrough(clients, { filter: { agentIds: ["a"] }, signal: stop.signal, ...options })) {
    events.push(event);
    if (enough(events)) stop.abort();
  }
  return { events, reconnect };
}

const interruptions = (events: readonly WatchEvent[]) => events.filter(({ kind }) => kind === "interrupted").length;
const empty = { snapshotAgents: [], changes: [], bookmark: undefined, revision: 0n };

function withSnapshot(backend: FakeBackend): void {
  const agent = backend.put("a", { status: "busy" });
  const parts = [agent, backend.put("b", { status: "idle" })];
  backend.watchMessages.push(...parts.map((one) => ({ ...empty, snapshotAgents: [one] })), {
    ...empty,
    bookmark: { snapshotComplete: true },
    revision: 41n,
  });
}

describe("a watch", () => {
  it("returns a snapshot as a whole, and ends without an error with its signal", async () => {
    const backend = createFakeBackend();
    withSnapshot(backend);
    backend.watchMessages.push({ ...empty, bookmark: { snapshotComplete: false }, revision: 43n });
    const { events } = await watch(backend, (all) => all.at(-1)?.kind === "bookmark");
    expect(events).toMatchObject([
      {
        kind: "snapshot",
        because: "started",
        revision: 41n,
        agents: [
          { agentId: "a", status: "busy", clawIdentifier: "claw-1" },
          { agentId: "b", status: "idle" },
        ],
      },
      { kind: "bookmark", revision: 43n },
    ]);
    expect(backend.calls.watches).toMatchObject([{ afterRevision: undefined, bookmarkMs: 10_000 }]);
  });

  it("resumes from its revision, by another connection, when it is cut off", async () => {
    const backend = createFakeBackend();
    withSnapshot(backend);
    backend.watchFailure = new Refusal("DRAINING", "This replica stops.", { retryAfterMs: 1 });
    const { events, reconnect } = await watch(backend, (all) => interruptions(all) === 2);
    expect(backend.calls.watches.map(({ afterRevision }) => afterRevision)).toEqual([undefined, 41n]);
    expect(events.filter(({ kind }) => kind === "snapshot")).toHaveLength(1);
    expect(events.at(-1)).toMatchObject({ kind: "interrupted", error: { code: "UNAVAILABLE", reason: "DRAINING" } });
    expect(reconnect).toHaveBeenCalledTimes(2);
  });

  it.each([
    ["REVISION_COMPACTED", "compacted"],
    ["REVISION_IN_FUTURE", "history_lost"],
  ] as const)("after %s starts again from a snapshot, and reports why", async (reason, because) => {
    const backend = createFakeBackend();
    backend.watchFailure = new Refusal(reason, "Start again.");
    const first = await watch(
      backend,
      (all) => {
        if (interruptions(all) === 1) {
          backend.watchFailure = undefined;
          withSnapshot(backend);
        }
        return all.at(-1)?.kind === "snapshot";
      },
      { from: 7n },
    );
    expect(backend.calls.watches.map(({ afterRevision }) => afterRevision)).toEqual([7n, undefined]);
    expect(first.events).toMatchObject([{ kind: "interrupted" }, { kind: "snapshot", because, revision: 41n }]);
  });

  it("does not resume from within a snapshot, and emits no part of it", async () => {
    const backend = createFakeBackend();
    withSnapshot(backend);
    backend.watchMessages.pop();
    backend.watchFailure = new Refusal("DRAINING", "This replica stops.", { retryAfterMs: 1 });
    const { events } = await watch(backend, (all) => interruptions(all) === 2);
    expect(backend.calls.watches.map(({ afterRevision }) => afterRevision)).toEqual([undefined, undefined]);
    expect(events.map(({ kind }) => kind)).toEqual(["interrupted", "interrupted"]);
  });

  it("throws an error that a retry does not help against", async () => {
    const backend = createFakeBackend();
    backend.watchFailure = new Refusal("UNAUTHENTICATED", "Show who you are.");
    await expect(watch(backend, () => false)).rejects.toMatchObject({ code: "UNAUTHENTICATED" });
  });

  it("retries after a rejection if the stream worked before: there may be another token", async () => {
    const backend = createFakeBackend();
    withSnapshot(backend);
    backend.watchFailure = new Refusal("UNAUTHENTICATED", "Your token has ended.");
    const { events } = await watch(backend, (all) => interruptions(all) === 1);
    expect(events.map(({ kind }) => kind)).toEqual(["snapshot", "interrupted"]);
  });
});

describe("with a fake clock,", () => {
  afterEach(() => void vi.useRealTimers());

  /** Sends a snapshot, and a bookmark each second for as long as requested. */
  function clockwork() {
    vi.useFakeTimers();
    const server = { streams: 0, speaks: true };
    const transport = createRouterTransport(({ service }) => {
      service(AgentService, {
        async *watchAgents(_, { signal }) {
          server.streams += 1;
          yield { revision: 5n, bookmark: { snapshotComplete: true } };
          while (!signal.aborted) {
            await new Promise((resolve) => setTimeout(resolve, 1_000));
            if (server.speaks) yield { revision: 5n, bookmark: {} };
          }
        },
      });
    });
    const stop = new AbortController();
    const events: WatchEvent["kind"][] = [];
    const reading = (async () => {
      for await (const { kind } of watchAgents({ transport, bookmarkMs: 1_000, signal: stop.signal }))
        events.push(kind);
    })();
    const end = async (): Promise<void> => {
      stop.abort();
      await vi.advanceTimersByTimeAsync(2_000);
      await reading;
    };
    return { server, events, end };
  }

  it("a stream that misses three bookmarks is replaced by another", async () => {
    const { server, events, end } = clockwork();
    await vi.advanceTimersByTimeAsync(10_000);
    expect([server.streams, events.includes("interrupted")]).toEqual([1, false]);
    server.speaks = false;
    await vi.advanceTimersByTimeAsync(6_000);
    expect(server.streams).toBeGreaterThan(1);
    expect(events).toContain("interrupted");
    await end();
  });

  it("a stream without a first message is replaced within the timeout, and says so", async () => {
    vi.useFakeTimers();
    let streams = 0;
    const transport = createRouterTransport(({ service }) => {
      service(AgentService, {
        async *watchAgents(_, { signal }) {
          streams += 1;
          await new Promise((resolve) => signal.addEventListener("abort", resolve));
        },
      });
    });
    const stop = new AbortController();
    const events: WatchEvent[] = [];
    const reading = (async () => {
      for await (const event of watchAgents({ transport, timeoutMs: 2_000, signal: stop.signal })) events.push(event);
    })();
    await vi.advanceTimersByTimeAsync(5_000);
    expect(events[0]).toMatchObject({
      kind: "interrupted",
      error: { code: "DEADLINE_EXCEEDED", message: "the service sent nothing for 2000 ms" },
    });
    expect(streams).toBe(2);
    stop.abort();
    await vi.advanceTimersByTimeAsync(2_000);
    await reading;
  });

  it("a machine that slept opens another stream within a second, not after three more bookmarks", async () => {
    const { server, end } = clockwork();
    await vi.advanceTimersByTimeAsync(500);
    server.speaks = false;
    vi.setSystemTime(Date.now() + 3_600_000);
    await vi.advanceTimersByTimeAsync(1_500);
    expect(server.streams).toBe(2);
    await end();
  });
});
