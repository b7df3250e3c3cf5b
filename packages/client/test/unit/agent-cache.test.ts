import { describe, expect, it, onTestFinished, vi } from "vitest";
import { PushedInput } from "../../../../test/support/pushed-input.ts";
import { PATIENCE } from "../../../../test/support/until.ts";
import { CallError } from "../../src/connection/call-error.ts";
import type { AgentView, ChangeView } from "../../src/views.ts";
import { cacheOf } from "../../src/watch/agent-cache.ts";
import type { WatchEvent } from "../../src/watch/watch-agents.ts";

function start(timeoutMs?: number) {
  const events = new PushedInput<WatchEvent>();
  const cache = cacheOf<AgentView, ChangeView>((signal) => {
    signal.addEventListener("abort", () => events.end());
    return events;
  }, timeoutMs);
  onTestFinished(() => cache.close());
  return { events, cache };
}

function agent(agentId: string, fields: Partial<AgentView> = {}): AgentView {
  const named = { agentId, clawIdentifier: "claw-1", id: 1n, userId: 1n };
  return { ...named, status: "idle", exhaustion: undefined, revision: 1n, ...fields };
}

function change(passes: boolean, changed: AgentView): ChangeView {
  const { agentId, revision } = changed;
  const transition = {
    revision,
    agentId,
    from: undefined,
    to: undefined,
    cause: "report",
    actor: "agent:a",
    occurredAt: new Date(0),
    exhaustion: undefined,
    clawIdentifier: undefined,
  } as const;
  return { passes, agent: changed, transition };
}

const snapshot = (revision: bigint, ...agents: AgentView[]): WatchEvent => ({
  kind: "snapshot",
  because: "started",
  agents,
  revision,
});
const changes = (revision: bigint, ...all: ChangeView[]): WatchEvent => ({ kind: "changes", changes: all, revision });

describe("a cache of agents", () => {
  it("has the state of the watch: a snapshot, changes, and another snapshot", async () => {
    const { events, cache } = start();
    expect([cache.revision, cache.isCurrent, cache.list()]).toEqual([undefined, false, []]);
    events.send(snapshot(5n, agent("a"), agent("b", { id: 2n })));
    await cache.ready;
    expect([cache.revision, cache.isCurrent, cache.list().length]).toEqual([5n, true, 2]);
    events.send(changes(7n, change(true, agent("a", { status: "busy" })), change(false, agent("b", { id: 2n }))));
    await vi.waitUntil(() => cache.revision === 7n, PATIENCE);
    expect(cache.get("a")?.status).toBe("busy");
    expect(cache.get("b")).toBeUndefined();
    events.send({ kind: "interrupted", error: undefined, retryInMs: 1 });
    await vi.waitUntil(() => !cache.isCurrent, PATIENCE);
    expect(cache.get("a")?.status).toBe("busy");
    events.send(snapshot(9n, agent("c")));
    await vi.waitUntil(() => cache.isCurrent, PATIENCE);
    expect(cache.list().map(({ agentId }) => agentId)).toEqual(["c"]);
    expect(cache.list(({ status }) => status === "busy")).toEqual([]);
  });

  it("treats an agent that was created again as another agent", async () => {
    const { events, cache } = start();
    events.send(snapshot(1n, agent("a", { id: 1n })));
    events.send(changes(3n, change(true, agent("a", { id: 2n })), change(false, agent("a", { id: 1n }))));
    await vi.waitUntil(() => cache.revision === 3n, PATIENCE);
    expect(cache.get("a")?.id).toBe(2n);
  });

  it("waits for a later event of its watch, and returns the value that was found", async () => {
    const { events, cache } = start();
    const found = cache.waitFor(({ list }) => list(({ status }) => status === "busy")[0]);
    events.send(snapshot(1n, agent("a")));
    events.send(changes(2n, change(true, agent("a", { status: "busy" }))));
    expect(await found).toMatchObject({ agentId: "a", status: "busy" });
    // At once, when it matches already.
    expect(await cache.waitFor(({ get }) => get("a")?.revision)).toBe(1n);
  });

  it("rejects the waits when the service rejects the watch", async () => {
    const error = new CallError("no", { code: "UNAUTHENTICATED" });
    const cache = cacheOf<AgentView, ChangeView>(async function* () {
      yield await Promise.reject(error);
    });
    await expect(cache.ready).rejects.toBe(error);
    await expect(cache.waitFor(() => true)).rejects.toBe(error);
    await cache.close();
  });

  it("rejects the first waits when the service is not reached in time, and goes on", async () => {
    const { events, cache } = start(50);
    const waiting = cache.waitFor(() => true);
    const unreachable = new CallError("connect ECONNREFUSED", { code: "UNAVAILABLE", metadata: { at: "home" } });
    events.send({ kind: "interrupted", error: unreachable, retryInMs: 10_000 });
    const error = {
      name: "CallError",
      code: "UNAVAILABLE",
      metadata: { at: "home" },
      message: "no snapshot within 50 ms: connect ECONNREFUSED. The cache goes on trying.",
      cause: unreachable,
    };
    await expect(cache.ready).rejects.toMatchObject(error);
    await expect(waiting).rejects.toMatchObject(error);
    await expect(cache.waitFor(() => true)).rejects.toMatchObject(error);
    events.send(snapshot(1n, agent("a")));
    expect(await cache.waitFor(({ get }) => get("a")?.agentId)).toBe("a");
    // From here on an interruption is waited out.
    const later = cache.waitFor(({ get }) => get("b")?.agentId);
    events.send({ kind: "interrupted", error: unreachable, retryInMs: 10_000 });
    await expect(start(50).cache.waitFor(() => true, { signal: AbortSignal.timeout(200) })).rejects.toMatchObject({
      name: "TimeoutError",
    });
    events.send(changes(2n, change(true, agent("b"))));
    expect(await later).toBe("b");
  });

  it("waits on for a snapshot that takes longer, until the watch is interrupted", async () => {
    const { events, cache } = start(20);
    let settled = false;
    const ready = cache.ready.finally(() => {
      settled = true;
    });
    await expect(cache.waitFor(() => true, { signal: AbortSignal.timeout(150) })).rejects.toThrow();
    expect(settled).toBe(false);
    events.send({ kind: "interrupted", error: undefined, retryInMs: 1 });
    await expect(ready).rejects.toMatchObject({
      code: "UNAVAILABLE",
      message: expect.stringMatching(/^no snapshot within 20 ms\. /),
    });
  });

  it("continues when a listener throws", async () => {
    const { events, cache } = start();
    const warning = vi.spyOn(process, "emitWarning").mockImplementation(() => undefined);
    onTestFinished(() => warning.mockRestore());
    const heard = vi.fn();
    cache.subscribe(() => {
      throw new Error("mine");
    });
    const unsubscribe = cache.subscribe(heard);
    events.send(snapshot(1n));
    await vi.waitUntil(() => heard.mock.calls.length === 1, PATIENCE);
    unsubscribe();
    events.send({ kind: "bookmark", revision: 2n });
    await vi.waitUntil(() => cache.revision === 2n, PATIENCE);
    expect(heard).toHaveBeenCalledTimes(1);
    expect(warning).toHaveBeenCalledTimes(2);
  });
});
