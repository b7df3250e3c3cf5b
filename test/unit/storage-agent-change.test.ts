import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import type { Agent } from "../../src/domain/agent.ts";
import type { ExhaustionChange } from "../../src/domain/exhaustion.ts";
import type { HoldChange, StatusChange } from "../../src/domain/status-machine.ts";
import { type AgentWrite, END_LEASE, KEEP_LEASE, memberOf } from "../../src/storage/agent-change.ts";

const NOW = 1_790_000_000_123_456;
const LARGE = 9_007_199_254_740_993n;

const AGENT: Agent = {
  id: LARGE,
  userId: LARGE + 1n,
  agentId: "agent-1",
  clawIdentifier: "claw-1",
  status: "busy",
  exhaustion: null,
  backoff: { steps: 3, lastAt: null },
  hold: null,
  createdAt: NOW,
  statusChangedAt: NOW,
  revision: LARGE + 2n,
  epoch: LARGE + 3n,
  held: true,
  lastHeartbeat: null,
  leaseExpiresAt: NOW,
  replicaId: 1,
  suspectSince: null,
  wakes: null,
  lapsesTo: null,
};

const CHANGE: StatusChange = {
  kind: "change",
  status: "idle",
  cause: "report",
  exhaustion: { kind: "keep" },
  hold: { kind: "keep" },
  forgetBackoff: false,
  notBefore: null,
};

/** The JSON of a member on the wire, which omits undefined values. */
function json(write: AgentWrite, request?: Parameters<typeof memberOf>[3]): Record<string, unknown> {
  return JSON.parse(JSON.stringify(memberOf(7, write, "service:calendar", request)));
}

function update(more: Partial<StatusChange> = {}): AgentWrite {
  const status = { ...CHANGE, ...more };
  return { kind: "update", agent: AGENT, cause: status.cause, status, lease: KEEP_LEASE };
}

const KEPT = { exhaustion: "keep", hold: "keep", lease: "keep" };
const FENCE = { id: LARGE.toString(), expect_revision: (LARGE + 2n).toString() };

describe("a member of a group of changes", () => {
  it("creates an agent for a user", () => {
    const user = { id: LARGE };
    const write: AgentWrite = { kind: "create", agentId: "a", clawIdentifier: "c", firstLeaseMs: 60_000.4, user };
    expect(json(write)).toEqual({
      n: 7,
      actor: "service:calendar",
      kind: "create",
      quiet: false,
      cause: "created",
      agent_id: "a",
      claw_identifier: "c",
      exhaustion: "keep",
      hold: "clear",
      lease: "grant",
      lease_ms: 60_000,
      heartbeat: false,
      user_id: LARGE.toString(),
    });
  });

  it("creates an agent with its user", () => {
    const user = { username: "u", email: null, displayName: "" };
    const write: AgentWrite = { kind: "create", agentId: "a", clawIdentifier: "c", firstLeaseMs: 1_000, user };
    const member = json(write);
    expect(member).toMatchObject({ username: "u", email: null, display_name: "" });
    expect(member).not.toHaveProperty("user_id");
  });

  it("only renews a lease", () => {
    const lease = { kind: "grant", ms: 30_000 } as const;
    expect(json({ kind: "quiet", agent: AGENT, lease, heartbeat: true, fenceEpoch: true })).toEqual({
      n: 7,
      actor: "service:calendar",
      ...FENCE,
      expect_epoch: (LARGE + 3n).toString(),
      kind: "update",
      quiet: true,
      status: "busy",
      exhaustion: "keep",
      hold: "keep",
      lease: "grant",
      lease_ms: 30_000,
      heartbeat: true,
    });
  });

  it("confirms a service's change", () => {
    expect(json({ kind: "quiet", agent: AGENT, lease: KEEP_LEASE, endHold: true })).toMatchObject({ hold: "clear" });
  });

  it("changes a status", () => {
    expect(json(update())).toEqual({
      n: 7,
      actor: "service:calendar",
      ...FENCE,
      ...KEPT,
      kind: "update",
      quiet: false,
      cause: "report",
      lease_ended: false,
      status: "idle",
      heartbeat: false,
      new_epoch: false,
      delete_user: false,
      user_id: (LARGE + 1n).toString(),
    });
  });

  it("expires a lease, as one of an incident", () => {
    const lost = { kind: "update", agent: AGENT, cause: "lease_expired", lease: END_LEASE } as const;
    expect(json({ ...lost, held: false, leaseEnded: true, incidentId: "i" })).toMatchObject({
      cause: "lease_expired",
      status: "busy",
      lease: "end",
      lease_ended: true,
      held: false,
      incident_id: "i",
    });
  });

  it("moves an agent", () => {
    const lease = { kind: "grant", ms: 60_000 } as const;
    const move = { kind: "update", agent: AGENT, cause: "moved", clawIdentifier: "claw-2", lease } as const;
    expect(json({ ...move, held: false, newEpoch: true })).toMatchObject({
      cause: "moved",
      status: "busy",
      claw_identifier: "claw-2",
      held: false,
      new_epoch: true,
      lease_ms: 60_000,
    });
  });

  it("deletes an agent, and its user", () => {
    const deletion = { kind: "delete", agent: AGENT, cause: "deleted", lease: KEEP_LEASE } as const;
    expect(json(deletion)).toMatchObject({ ...FENCE, kind: "delete", delete_user: false });
    expect(json({ ...deletion, deleteUser: true })).toMatchObject({ delete_user: true, user_id: `${LARGE + 1n}` });
  });

  it("records the response to a request", () => {
    const request = { principal: "service:p", id: "r", fingerprint: "f" };
    expect(json(update(), request)).toMatchObject({ principal: "service:p", request_id: "r", fingerprint: "f" });
    expect(json(update())).not.toHaveProperty("request_id");
  });

  it("has a time after which it must not commit", () => {
    expect(memberOf(0, update(), "server", undefined, 0)).toMatchObject({ not_after: "1970-01-01T00:00:00.000000Z" });
    expect(json(update())).not.toHaveProperty("not_after");
  });

  it.each<[string, ExhaustionChange, object]>([
    ["keeps", { kind: "keep" }, { exhaustion: "keep" }],
    ["clears", { kind: "clear" }, { exhaustion: "clear" }],
    [
      "sets, until a moment,",
      { kind: "set", reason: "billing", recovery: { at: NOW }, continues: true, backoffSteps: 2 },
      {
        exhaustion: "set",
        exhaust_reason: "billing",
        keep_exhausted_at: true,
        recovery_at: "2026-09-21T14:13:20.123456Z",
        backoff_steps: 2,
      },
    ],
    [
      "sets, for some time,",
      { kind: "set", reason: "rate_limit", recovery: { afterMs: 1_500.6 }, continues: false, backoffSteps: 0 },
      {
        exhaustion: "set",
        exhaust_reason: "rate_limit",
        keep_exhausted_at: false,
        recovery_after_ms: 1_501,
        backoff_steps: 0,
      },
    ],
  ])("%s an exhaustion", (_, exhaustion, columns) => {
    const member = json(update({ exhaustion }));
    expect(member).toMatchObject(columns);
    expect(["recovery_at", "recovery_after_ms"].filter((key) => key in member)).toEqual(
      ["recovery_at", "recovery_after_ms"].filter((key) => key in columns),
    );
  });

  it.each<[string, HoldChange, object]>([
    ["keeps", { kind: "keep" }, { hold: "keep" }],
    ["clears", { kind: "clear" }, { hold: "clear" }],
    ["sets, for some time,", { kind: "set", forMs: 60_000 }, { hold: "set", hold_ms: 60_000 }],
    ["sets, for no time,", { kind: "set", forMs: 0 }, { hold: "clear" }],
    ["sets, until the recovery,", { kind: "set", forMs: "until_recovery" }, { hold: "set" }],
  ])("%s a hold", (_, hold, columns) => {
    const { hold: kind, hold_ms } = json(update({ hold }));
    expect({ hold: kind, ...(hold_ms === undefined ? {} : { hold_ms }) }).toEqual(columns);
  });

  it("requires an instant to be in the past", () => {
    expect(json(update({ notBefore: 0 }))).toMatchObject({ not_before: "1970-01-01T00:00:00.000000Z" });
    expect(json(update())).not.toHaveProperty("not_before");
  });

  it("ends a row of backoffs", () => {
    expect(json(update({ forgetBackoff: true }))).toMatchObject({ backoff_steps: 0 });
    expect(json(update())).not.toHaveProperty("backoff_steps");
  });

  it("names no field that the database does not know, which it would silently ignore", () => {
    const migrations = new URL("../../migrations/", import.meta.url);
    const sql = readdirSync(migrations)
      .map((file) => readFileSync(new URL(file, migrations), "utf8"))
      .join("\n");
    const body = /CREATE TYPE agent_change AS \(([^;]*)\);/.exec(sql)?.[1] ?? "";
    const added = [...sql.matchAll(/^ALTER TYPE agent_change ([^;]*);/gm)].map(([, attributes]) => attributes).join();
    const columns = [...body.matchAll(/^ {2}(\w+) \w+/gm), ...added.matchAll(/ADD ATTRIBUTE (\w+)/g)].map(
      ([, column]) => column,
    );
    expect(columns).toContain("expect_revision");
    const news = { kind: "set", reason: "billing", continues: true, backoffSteps: 2 } as const;
    const writes: AgentWrite[] = [
      { kind: "create", agentId: "a", clawIdentifier: "c", firstLeaseMs: 1, user: { id: 1n } },
      {
        kind: "create",
        agentId: "a",
        clawIdentifier: "c",
        firstLeaseMs: 1,
        user: { username: "u", email: "e", displayName: "d" },
      },
      {
        kind: "quiet",
        agent: AGENT,
        lease: { kind: "grant", ms: 1 },
        endHold: true,
        claimKnown: true,
        heartbeat: true,
        fenceEpoch: true,
      },
      {
        ...{ kind: "update", agent: AGENT, cause: "service", clawIdentifier: "c", lease: { kind: "grant", ms: 1 } },
        status: {
          ...CHANGE,
          exhaustion: { ...news, recovery: { at: NOW } },
          hold: { kind: "set", forMs: 1, lapsesTo: "idle" },
          notBefore: NOW,
        },
        ...{ heartbeat: true, held: true, newEpoch: true, fenceEpoch: true, leaseEnded: true, incidentId: "i" },
        ...{ notSuspect: true, deadline: "claim" },
        deleteUser: true,
      },
      update({ exhaustion: { ...news, recovery: { afterMs: 1 } }, forgetBackoff: true }),
    ];
    const request = { principal: "service:p", id: "r", fingerprint: "f" };
    const keys = new Set(writes.flatMap((write) => Object.keys(memberOf(0, write, "server", request, NOW))));
    expect([...keys].filter((key) => !columns.includes(key))).toEqual([]);
    expect(columns.filter((column) => column !== undefined && !keys.has(column))).toEqual([]);
  });
});
