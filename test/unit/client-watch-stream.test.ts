import { describe, expect, it } from "vitest";
import { type WatchEvent, watchAgents } from "../../src/client/watch-stream.ts";
import { Refusal } from "../../src/domain/errors.ts";
import { createFakeBackend, type FakeBackend } from "../support/fake-backend.ts";
import { createInMemoryClients } from "../support/in-memory-clients.ts";

/** Watches until `enough` says so. */
async function watch(backend: FakeBackend, enough: (events: readonly WatchEvent[]) => boolean, afterRevision?: bigint) {
  const clients = createInMemoryClients(backend);
  const stop = new AbortController();
  const events: WatchEvent[] = [];
  const from = afterRevision === undefined ? {} : { afterRevision };
  for await (const event of watchAgents({ clients, filter: { agentIds: ["a"] }, signal: stop.signal, ...from })) {
    events.push(event);
    if (enough(events)) stop.abort();
  }
  return events;
}

const interruptions = (events: readonly WatchEvent[]) => events.filter(({ kind }) => kind === "interrupted").length;

function withSnapshot(backend: FakeBackend): void {
  const agent = backend.put("a", { status: "busy" });
  const empty = { snapshotAgents: [], changes: [], bookmark: undefined, revision: 0n };
  backend.watchMessages.push(
    { ...empty, snapshotAgents: [agent] },
    { ...empty, bookmark: { snapshotComplete: true }, revision: 41n },
  );
}

describe("watchAgents", () => {
  it("tells a snapshot and its end, and ends quietly with its signal", async () => {
    const backend = createFakeBackend();
    withSnapshot(backend);
    const events = await watch(backend, (all) => all.at(-1)?.kind === "bookmark");
    expect(events).toMatchObject([
      { kind: "snapshot" },
      { kind: "agents", agents: [{ agentId: "a", status: "busy", clawIdentifier: "claw-1" }] },
      { kind: "bookmark", revision: 41n, snapshotComplete: true },
    ]);
    expect(backend.calls.watches).toMatchObject([{ afterRevision: undefined, bookmarkMs: 10_000 }]);
  });

  it("goes on from where it was when it is cut off", async () => {
    const backend = createFakeBackend();
    withSnapshot(backend);
    backend.watchFailure = new Refusal("DRAINING", "This replica stops.", { retryAfterMs: 1 });
    const events = await watch(backend, (all) => interruptions(all) === 2);
    expect(backend.calls.watches.map(({ afterRevision }) => afterRevision)).toEqual([undefined, 41n]);
    expect(events.filter(({ kind }) => kind === "snapshot")).toHaveLength(1);
    expect(events.at(-1)).toMatchObject({ kind: "interrupted", error: { code: "UNAVAILABLE", reason: "DRAINING" } });
  });

  it("starts again from a snapshot when what came after is no longer kept", async () => {
    const backend = createFakeBackend();
    backend.watchFailure = new Refusal("REVISION_COMPACTED", "Start again.", { metadata: { oldestRevision: "90" } });
    const events = await watch(backend, (all) => interruptions(all) === 2, 7n);
    expect(backend.calls.watches.map(({ afterRevision }) => afterRevision)).toEqual([7n, undefined]);
    expect(events.map(({ kind }) => kind)).toEqual(["interrupted", "snapshot", "interrupted"]);
  });

  it("does not resume from within a snapshot", async () => {
    const backend = createFakeBackend();
    withSnapshot(backend);
    backend.watchMessages.pop();
    backend.watchFailure = new Refusal("DRAINING", "This replica stops.", { retryAfterMs: 1 });
    await watch(backend, (all) => interruptions(all) === 2);
    expect(backend.calls.watches.map(({ afterRevision }) => afterRevision)).toEqual([undefined, undefined]);
  });

  it("throws what no repetition helps against", async () => {
    const backend = createFakeBackend();
    backend.watchFailure = new Refusal("UNAUTHENTICATED", "Show who you are.");
    await expect(watch(backend, () => false)).rejects.toMatchObject({ code: "UNAUTHENTICATED" });
  });
});
