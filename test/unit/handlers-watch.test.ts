import { describe, expect, it, vi } from "vitest";
import { AgentStatus } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import { AgentChangeType, type WatchAgentsResponse } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { Refusal } from "../../src/domain/errors.ts";
import { EVERY_AGENT } from "../../src/domain/filter.ts";
import type { WatchMessage } from "../../src/rpc/handlers/backend.ts";
import { createFakeBackend } from "../support/fake-backend.ts";
import { createInMemoryClients, refusalOf } from "../support/in-memory-clients.ts";
import { PATIENCE } from "../support/until.ts";

function start() {
  const backend = createFakeBackend();
  return { backend, ...createInMemoryClients(backend) };
}

function message(revision: bigint, more: Partial<WatchMessage> = {}): WatchMessage {
  return { revision, snapshotAgents: [], changes: [], bookmark: undefined, ...more };
}

describe("WatchAgents", () => {
  it("passes filter and position to the watcher", async () => {
    const { agents, backend } = start();
    backend.watchFailure = new Refusal("DRAINING", "The replica stops.");
    const watch = (request: Parameters<typeof agents.watchAgents>[0]) =>
      refusalOf(agents.watchAgents(request)[Symbol.asyncIterator]().next());
    await watch({});
    await watch({
      filter: { agentIds: ["a"], userIds: [1n], clawIdentifiers: ["c"], statuses: [AgentStatus.BUSY] },
      afterRevision: 0n,
      conflate: true,
      bookmarkInterval: { seconds: 1n },
    });
    await watch({ afterRevision: 7n, bookmarkInterval: { seconds: 300n } });
    expect(backend.calls.watches).toEqual([
      { filter: EVERY_AGENT, afterRevision: undefined, conflate: false, bookmarkMs: 10_000 },
      {
        filter: { agentIds: ["a"], userIds: [1n], clawIdentifiers: ["c"], statuses: ["busy"] },
        afterRevision: 0n,
        conflate: true,
        bookmarkMs: 1_000,
      },
      { filter: EVERY_AGENT, afterRevision: 7n, conflate: false, bookmarkMs: 300_000 },
    ]);
  });

  it.each([
    { request: { afterRevision: -1n }, fields: ["after_revision"] },
    { request: { bookmarkInterval: {} }, fields: ["bookmark_interval"] },
    { request: { bookmarkInterval: { nanos: 999_999_999 } }, fields: ["bookmark_interval"] },
    { request: { bookmarkInterval: { seconds: 300n, nanos: 1 } }, fields: ["bookmark_interval"] },
    { request: { bookmarkInterval: { seconds: -10n } }, fields: ["bookmark_interval"] },
    { request: { afterRevision: -1n, filter: { agentIds: [""] } }, fields: ["filter.agent_ids[0]", "after_revision"] },
  ])("rejects $fields in $request", async ({ request, fields }) => {
    const { agents, backend } = start();
    expect(await refusalOf(agents.watchAgents(request)[Symbol.asyncIterator]().next())).toMatchObject({
      code: "InvalidArgument",
      reason: "INVALID_FIELD",
      fields,
    });
    expect(backend.calls.watches).toEqual([]);
  });

  it("sends snapshot, bookmarks and changes, and stops when its client ends the call", async () => {
    const { agents, backend, pipeline } = start();
    const agent = backend.put("a", { lastHeartbeat: 1 });
    backend.put("a", { status: "busy" });
    const transition = (
      await backend.agents.transitions({
        agentId: "a",
        afterRevision: 1n,
        newestFirst: false,
        after: undefined,
        upTo: undefined,
        limit: 1,
      })
    ).rows[0];
    if (transition === undefined) throw new Error("no transition");
    backend.watchMessages.push(
      message(0n, { snapshotAgents: [agent] }),
      message(1n, { bookmark: { snapshotComplete: true } }),
      message(2n, { changes: [{ type: "entered", transition, conflated: 3 }] }),
      message(5n, { bookmark: { snapshotComplete: false } }),
    );
    const controller = new AbortController();
    const stream = agents.watchAgents({}, { signal: controller.signal })[Symbol.asyncIterator]();
    const told: WatchAgentsResponse[] = [];
    for (let index = 0; index < 4; index++) told.push((await stream.next()).value);
    expect(told).toMatchObject([
      { revision: 0n, snapshotAgents: [{ agentId: "a", status: AgentStatus.IDLE }], changes: [] },
      { revision: 1n, bookmark: { snapshotComplete: true } },
      {
        revision: 2n,
        changes: [
          {
            type: AgentChangeType.ENTERED,
            conflated: 3,
            agent: { agentId: "a", status: AgentStatus.BUSY, revision: 2n },
            transition: { revision: 2n, fromStatus: AgentStatus.IDLE, toStatus: AgentStatus.BUSY },
          },
        ],
      },
      { revision: 5n, bookmark: { snapshotComplete: false } },
    ]);
    for (const clockless of [told[0]?.snapshotAgents[0], told[2]?.changes[0]?.agent]) {
      expect(clockless?.lastHeartbeat).toBeUndefined();
      expect(clockless?.leaseExpiresAt).toBeUndefined();
    }
    const pending = stream.next();
    await vi.waitFor(() => expect(backend.watching).toBe(1), PATIENCE);
    controller.abort();
    expect((await refusalOf(pending)).code).toBe("Canceled");
    await vi.waitFor(() => expect(backend.watching).toBe(0), PATIENCE);
    expect(pipeline.openStreams.size).toBe(0);
  });

  it("passes on the reason for the end of a watch", async () => {
    const { agents, backend } = start();
    backend.watchMessages.push(message(4n, { bookmark: { snapshotComplete: false } }));
    backend.watchFailure = new Refusal("WATCHER_TOO_SLOW", "Resume from where it stopped.", {
      metadata: { revision: "4" },
    });
    const stream = agents.watchAgents({ afterRevision: 3n })[Symbol.asyncIterator]();
    expect((await stream.next()).value).toMatchObject({ revision: 4n });
    expect(await refusalOf(stream.next())).toMatchObject({
      code: "ResourceExhausted",
      reason: "WATCHER_TOO_SLOW",
      metadata: { revision: "4" },
    });
  });

  it("ends with DEADLINE_EXCEEDED at its deadline", async () => {
    const { agents, backend } = start();
    const stream = agents.watchAgents({}, { timeoutMs: 100 })[Symbol.asyncIterator]();
    expect((await refusalOf(stream.next())).code).toBe("DeadlineExceeded");
    await vi.waitFor(() => expect(backend.watching).toBe(0), PATIENCE);
  });
});
