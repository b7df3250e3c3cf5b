import { afterEach, describe, expect, test } from "vitest";
import { agentDenied } from "../../src/domain/principal.ts";
import { measureLog } from "../../src/storage/log-size.ts";
import { backdate, openReplicas } from "../support/fleet-scene.ts";
import { MetricPage } from "../support/metric-page.ts";
import type { Replica } from "../support/replica.ts";
import { alive, goodbye, reports, starting } from "../support/replica-stream.ts";
import { until } from "../support/until.ts";
import { WatchReader } from "../support/watch-reader.ts";

let undo = new AsyncDisposableStack();
afterEach(async () => {
  await undo.disposeAsync();
  undo = new AsyncDisposableStack();
});

const count = async ({ metrics }: Replica, name: string, labels: Readonly<Record<string, string>> = {}) =>
  (await MetricPage.of(metrics)).get(name, labels);

const untilCounted = (replica: Replica, name: string, labels: Readonly<Record<string, string>>, wanted: number) =>
  until(`${name} ${JSON.stringify(labels)} is ${wanted}`, async () => (await count(replica, name, labels)) === wanted);

describe("heartbeats", () => {
  test("are counted by their results, those of streams and those of unary calls", async () => {
    const [replica] = await openReplicas(undo, {});
    const agent = await replica.createAgent("agent-1");
    const claw = replica.stream({ clawIdentifier: "claw-1" });
    await claw.say(alive("agent-1"));
    await claw.say(alive("agent-1"), reports("agent-1", "busy"));
    await claw.say(alive("no-such-agent"), { agentId: "agent-2", refusal: agentDenied("agent-2") });
    await claw.say(starting("resume", alive("agent-1")));
    const elsewhere = replica.stream({ clawIdentifier: "claw-2" });
    await elsewhere.say(alive("agent-1"));
    await replica.agents.updateStatus("agent-1", { status: "idle", holdMs: 60_000 }, undefined, replica.by);
    await replica.liveness.beat([reports("agent-1", "busy", agent.revision)], {
      clawIdentifier: undefined,
      leaseMs: 30_000,
    });
    await claw.say(goodbye("agent-1"));
    const page = await MetricPage.of(replica.metrics);
    const results = [
      "renewed",
      "transition",
      "outdated",
      "superseded",
      "wrong_claw",
      "denied",
      "unknown",
      "limited",
      "invalid",
    ];
    expect(
      Object.fromEntries(results.map((result) => [result, page.get("harborforge_heartbeats_total", { result })])),
    ).toEqual({
      renewed: 2,
      transition: 2,
      outdated: 1,
      superseded: 0,
      wrong_claw: 1,
      denied: 1,
      unknown: 1,
      limited: 0,
      invalid: 1,
    });
    // Six messages of streams and one unary call.
    expect(page.get("harborforge_heartbeat_acknowledgement_seconds_count")).toBe(7);
  });

  test("observe what was left of the lease", async () => {
    const [replica] = await openReplicas(undo, { intervalMs: 10_000 });
    await replica.createAgent("agent-1");
    const claw = replica.stream();
    await claw.say(alive("agent-1"));
    const before = await count(replica, "harborforge_lease_margin_ratio_count");
    await claw.say(alive("agent-1"));
    const page = await MetricPage.of(replica.metrics);
    expect(page.get("harborforge_lease_margin_ratio_count")).toBe((before ?? 0) + 1);
    // It was renewed a moment before, at most ten seconds.
    expect(page.get("harborforge_lease_margin_ratio_bucket", { le: "0.6" })).toBe(0);
  });
});

describe("sessions that lose an agent are counted by the taker", () => {
  test("another process, the same process, and a process at another replica", async () => {
    const [one, two] = await openReplicas(undo, {}, {});
    if (two === undefined) throw new TypeError("two replicas");
    await one.createAgent("agent-1");
    const by = async (taker: string) => await count(one, "harborforge_sessions_superseded_total", { by: taker });
    await one.stream({ instanceId: "process-1", generation: 1n }).say(starting("first", alive("agent-1")));
    await one.stream({ instanceId: "process-1", generation: 2n }).say(starting("resume", alive("agent-1")));
    expect([await by("same_process"), await by("other_process")]).toEqual([1, 0]);
    const last = one.stream({ instanceId: "process-2", generation: 1n });
    await last.say(starting("first", alive("agent-1")));
    expect([await by("same_process"), await by("other_process")]).toEqual([1, 1]);
    await two.stream({ instanceId: "process-3", generation: 1n }).say(starting("first", alive("agent-1")));
    await last.say(alive("agent-1"));
    expect([await by("same_process"), await by("other_process"), await by("other_replica")]).toEqual([1, 1, 1]);
  });
});

describe("an expired lease", () => {
  test("is counted as reversed when the agent is back within one lease, and not when a goodbye came before", async () => {
    const [replica] = await openReplicas(undo, { intervalMs: 1_000 });
    await replica.createAgent("agent-1");
    await replica.createAgent("agent-2");
    const claw = replica.stream();
    await claw.say(alive("agent-1"), goodbye("agent-2"));
    await replica.untilStatus("agent-2", "offline");
    await claw.say(alive("agent-2"));
    expect(await count(replica, "harborforge_lease_expirations_reversed_total")).toBe(0);
    // Both leases end. Only one agent is back.
    await replica.untilStatus("agent-1", "offline");
    await claw.say(alive("agent-1"));
    await untilCounted(replica, "harborforge_lease_expirations_reversed_total", {}, 1);
    const page = await MetricPage.of(replica.metrics);
    expect(page.get("harborforge_lease_end_lag_seconds_count")).toBeGreaterThanOrEqual(1);
    expect(page.get("harborforge_transitions_total", { cause: "goodbye", to_status: "offline" })).toBe(1);
    expect(
      page.get("harborforge_transitions_total", { cause: "lease_expired", to_status: "offline" }),
    ).toBeGreaterThanOrEqual(1);
    expect(page.get("harborforge_claw_incidents_total")).toBeGreaterThanOrEqual(1);
  });
});

describe("changes", () => {
  test("are counted where they were committed, by cause and status", async () => {
    const [one, two] = await openReplicas(undo, {}, {});
    await one.createAgent("agent-1");
    await one.agents.updateStatus(
      "agent-1",
      { status: { exhausted: { reason: "billing", retryAfterMs: 100 } }, holdMs: undefined },
      undefined,
      one.by,
    );
    await one.untilStatus("agent-1", "idle");
    await one.agents.move("agent-1", "claw-2", one.by);
    await one.agents.delete("agent-1", one.by);
    await one.untilHeard();
    const total = async (cause: string, toStatus: string) =>
      ((await count(one, "harborforge_transitions_total", { cause, to_status: toStatus })) ?? 0) +
      (two === undefined
        ? 0
        : ((await count(two, "harborforge_transitions_total", { cause, to_status: toStatus })) ?? 0));
    expect(await total("created", "idle")).toBe(1);
    expect(await total("service", "exhausted")).toBe(1);
    expect(await total("recovery", "idle")).toBe(1);
    expect(await total("moved", "idle")).toBe(1);
    expect(await total("deleted", "deleted")).toBe(1);
    const page = await MetricPage.of(one.metrics);
    expect(page.get("harborforge_commit_seconds_count")).toBeGreaterThanOrEqual(4);
    expect(page.get("harborforge_commit_group_transitions_count")).toBe(page.get("harborforge_commit_seconds_count"));
    expect(page.get("harborforge_database_statement_seconds_count", { statement: "commit-changes" })).toBe(
      page.get("harborforge_commit_seconds_count"),
    );
    expect(
      page.get("harborforge_database_pool_connections", { pool: "commits", state: "idle" }),
    ).toBeGreaterThanOrEqual(1);
  });

  test("that wait are known by the age of the oldest", async () => {
    const [replica] = await openReplicas(undo, {});
    await replica.createAgent("agent-1");
    expect(replica.committer.oldestWaitingMs).toBe(0);
    using hold = replica.gate.hold("commit-changes", "before");
    const change = replica.agents.move("agent-1", "claw-2", replica.by);
    await hold.arrived();
    await until("it waits", () => replica.committer.oldestWaitingMs > 50);
    hold[Symbol.dispose]();
    await change;
    expect(replica.committer.oldestWaitingMs).toBe(0);
  });
});

describe("watches", () => {
  test("observe the time from the commit to the watcher, and count how they end", async () => {
    const [replica] = await openReplicas(undo, {});
    await replica.createAgent("agent-1");
    {
      await using reader = new WatchReader(replica.watches);
      await reader.until(({ snapshot }) => snapshot !== undefined);
      await replica.agents.move("agent-1", "claw-2", replica.by);
      await reader.until(({ revisions }) => revisions.length === 1);
      await replica.agents.move("agent-1", "claw-1", replica.by);
      await reader.until(({ revisions }) => revisions.length === 2);
      await untilCounted(replica, "harborforge_watch_delivery_lag_seconds_count", {}, 2);
    }
    await untilCounted(replica, "harborforge_watch_ends_total", { reason: "closed" }, 1);
    await using future = new WatchReader(replica.watches, { afterRevision: 2n ** 62n });
    await future.end();
    await untilCounted(replica, "harborforge_watch_ends_total", { reason: "in_future" }, 1);
  });
});

describe("a replica among others", () => {
  test("counts the replicas that it adopts, and the time for which it was isolated itself", async () => {
    const [watcher, dead = watcher, adopter = watcher] = await openReplicas(
      undo,
      { started: false },
      { started: false },
      {},
    );
    const [agentId = ""] = await watcher.seedAgents(1, "calm-");
    await dead.stream().say(alive(agentId));
    await backdate(dead, watcher, 60_000);
    await untilCounted(adopter, "harborforge_replica_adoptions_total", {}, 1);
    const before = (await count(adopter, "harborforge_isolated_seconds_total")) ?? 0;
    using hold = adopter.gate.hold("refresh-replica");
    await hold.arrived();
    await backdate(adopter, watcher, 60_000);
    hold.release();
    await until("it is back", async () => ((await count(adopter, "harborforge_isolated_seconds_total")) ?? 0) > before);
  });

  test("measures the log", async () => {
    const [replica] = await openReplicas(undo, {});
    expect(await measureLog(replica.database)).toEqual({ transitions: 0, oldestAt: null });
    const first = await replica.createAgent("agent-1");
    await replica.createAgent("agent-2");
    await replica.agents.move("agent-1", "claw-2", replica.by);
    const [creation] = await replica.history("agent-1");
    expect(await measureLog(replica.database)).toEqual({ transitions: 3, oldestAt: creation?.occurredAt });
    await replica.query("UPDATE revision_counter SET oldest = $1", first.revision);
    expect((await measureLog(replica.database)).transitions).toBe(2);
  });
});
