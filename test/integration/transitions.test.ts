import { afterAll, beforeAll, expect, test } from "vitest";
import type { Transition } from "../../src/domain/agent.ts";
import type { TransitionQuery } from "../../src/domain/directories.ts";
import { by, createTestStorage, refused } from "../support/storage.ts";

let storage: Awaited<ReturnType<typeof createTestStorage>>;
let userId = 0n;
beforeAll(async () => {
  storage = await createTestStorage();
  const user = { username: "ada", email: null, displayName: "", agent: undefined };
  userId = (await storage.users.create(user, by())).user.id;
  // scribe-7 is created twice, and another agent changes in between.
  await storage.agents.create({ userId, agentId: "scribe-7", clawIdentifier: "claw-1" }, by());
  const agent = { agentId: "painter-1", clawIdentifier: "claw-1" };
  await storage.users.create({ username: "grace", email: null, displayName: "", agent }, by());
  await storage.agents.updateStatus("scribe-7", { status: "busy", holdMs: undefined }, undefined, by("claim-1"));
  await storage.agents.delete("scribe-7", { actor: "user:ada", request: undefined });
  await storage.agents.create({ userId, agentId: "scribe-7", clawIdentifier: "claw-2" }, by());
  await storage.agents.move("painter-1", "claw-3", by());
});
afterAll(() => storage[Symbol.asyncDispose]());

const EVERYTHING: TransitionQuery = {
  agentId: undefined,
  afterRevision: 0n,
  newestFirst: false,
  after: undefined,
  upTo: undefined,
  limit: 100,
};

function list(query: Partial<TransitionQuery> = {}) {
  return storage.agents.transitions({ ...EVERYTHING, ...query });
}

async function inPages(query: Partial<TransitionQuery>, limit: number): Promise<Transition[]> {
  const found: Transition[] = [];
  let page = await list({ ...query, limit });
  for (;;) {
    found.push(...page.rows);
    if (page.next === undefined) return found;
    page = await list({ ...query, limit, after: page.next, upTo: page.upTo });
  }
}

test("the log has the whole history of an agent_id, also of deleted agents", async () => {
  const { rows, next } = await list({ agentId: "scribe-7" });
  expect(next).toBeUndefined();
  expect(rows.map(({ cause }) => cause)).toEqual(["created", "service", "deleted", "created"]);
  const [created, busy, deleted, again] = rows;
  expect(busy).toEqual({
    revision: expect.any(BigInt),
    id: created?.id,
    agentId: "scribe-7",
    userId,
    fromStatus: "idle",
    toStatus: "busy",
    fromClaw: "claw-1",
    toClaw: "claw-1",
    cause: "service",
    actor: "service:test",
    occurredAt: expect.any(Number),
    requestId: "claim-1",
    incidentId: null,
    previousRevision: created?.revision,
    exhaustion: null,
    createdAt: created?.createdAt,
    statusChangedAt: busy?.occurredAt,
    wake: null,
    openWake: null,
  });
  expect(created).toMatchObject({ fromStatus: null, fromClaw: null, previousRevision: null, toClaw: "claw-1" });
  expect(deleted).toMatchObject({ toStatus: null, toClaw: null, fromStatus: "busy", actor: "user:ada" });
  expect(again?.id).toBeGreaterThan(created?.id ?? 0n);
});

test("the log is read in order and in reverse, in pages of any size", async () => {
  const { rows } = await list();
  const revisions = rows.map(({ revision }) => revision);
  expect(revisions).toHaveLength(6);
  expect([...revisions].sort((a, b) => Number(a - b))).toEqual(revisions);
  for (const limit of [1, 2, 6, 7]) {
    expect(await inPages({}, limit)).toEqual(rows);
    expect(await inPages({ newestFirst: true }, limit)).toEqual([...rows].reverse());
    const own = rows.filter(({ agentId }) => agentId === "scribe-7");
    expect(await inPages({ agentId: "scribe-7" }, limit)).toEqual(own);
  }
  const afterRevision = revisions[2] ?? 0n;
  expect(await inPages({ afterRevision }, 2)).toEqual(rows.slice(3));
  expect(await inPages({ afterRevision, newestFirst: true }, 2)).toEqual(rows.slice(3).reverse());
  expect((await list({ afterRevision: revisions[5] ?? 0n })).rows).toEqual([]);
});

test("pages end at the extent of the first page, whatever commits meanwhile", async () => {
  // A log of its own: the others count the transitions of theirs.
  await using other = await createTestStorage();
  for (const name of ["a", "b", "c", "d"]) {
    const agent = { agentId: name, clawIdentifier: "claw-1" };
    await other.users.create({ username: name, email: null, displayName: "", agent }, by());
  }
  const page = (query: Partial<TransitionQuery>) => other.agents.transitions({ ...EVERYTHING, ...query });
  for (const newestFirst of [false, true]) {
    const before = (await page({ newestFirst })).rows;
    const first = await page({ newestFirst, limit: 3 });
    await other.agents.move("a", `claw-${newestFirst}`, by());
    const second = await page({ newestFirst, limit: 100, after: first.next, upTo: first.upTo });
    expect([...first.rows, ...second.rows]).toEqual(before);
    expect(second.upTo).toBe(first.upTo);
  }
});

test("rejects a revision that was never assigned", async () => {
  const { upTo } = await list();
  await expect(list({ afterRevision: upTo + 1n })).rejects.toMatchObject(
    refused("REVISION_IN_FUTURE", { newestRevision: upTo.toString() }),
  );
});

test("rejects a start before the oldest kept revision, and returns all that is kept", async () => {
  await using other = await createTestStorage();
  for (const name of ["a", "b"]) {
    const agent = { agentId: name, clawIdentifier: "claw-1" };
    await other.users.create({ username: name, email: null, displayName: "", agent }, by());
  }
  const [first = 0n, second = 0n] = (await other.agents.transitions(EVERYTHING)).rows.map(({ revision }) => revision);
  await other.query("UPDATE revision_counter SET oldest = $1", [second]);
  await other.query("DELETE FROM agent_transitions WHERE revision <= $1", [first]);
  const compacted = refused("REVISION_COMPACTED", { oldestRevision: String(second) });
  const after = (query: Partial<TransitionQuery>) => other.agents.transitions({ ...EVERYTHING, ...query });
  await expect(after({ afterRevision: first })).rejects.toMatchObject(compacted);
  await expect(after({ afterRevision: 1n, newestFirst: true })).rejects.toMatchObject(compacted);
  // The page before ended at the revision gap.
  await expect(after({ after: first, upTo: second })).rejects.toMatchObject(compacted);
  expect((await after({ afterRevision: second })).rows).toEqual([]);
});

test("returns the log from its beginning, in pages, also with transitions of a lost history", async () => {
  await using other = await createTestStorage();
  for (const name of ["a", "b", "c", "d"]) {
    const agent = { agentId: name, clawIdentifier: "claw-1" };
    await other.users.create({ username: name, email: null, displayName: "", agent }, by());
  }
  const all = (await other.agents.transitions(EVERYTHING)).rows.map(({ revision }) => revision);
  await other.query("UPDATE revision_counter SET oldest = $1", [all[1]]);
  for (const newestFirst of [false, true]) {
    const found: bigint[] = [];
    let page = await other.agents.transitions({ ...EVERYTHING, newestFirst, limit: 1 });
    for (;;) {
      found.push(...page.rows.map(({ revision }) => revision));
      if (page.next === undefined) break;
      const { next, upTo } = page;
      page = await other.agents.transitions({ ...EVERYTHING, newestFirst, limit: 1, after: next, upTo });
    }
    expect(found).toEqual(newestFirst ? [all[3], all[2]] : [all[2], all[3]]);
  }
});

test("rejects a start within a history that was lost", async () => {
  await using other = await createTestStorage();
  const [counter] = await other.query<{ revision: bigint; oldest: bigint }>("SELECT * FROM revision_counter");
  const before = counter?.revision ?? 0n;
  await other.query("UPDATE revision_history SET server_started_at = '-infinity'");
  const agent = { agentId: "a", clawIdentifier: "claw-1" };
  await other.users.create({ username: "a", email: null, displayName: "", agent }, by());
  const { upTo } = await other.agents.transitions(EVERYTHING);
  for (const afterRevision of [before + 1n, upTo - 2n]) {
    await expect(other.agents.transitions({ ...EVERYTHING, afterRevision })).rejects.toMatchObject(
      refused("REVISION_COMPACTED", { oldestRevision: String(counter?.oldest) }),
    );
  }
  for (const afterRevision of [before, upTo - 1n]) {
    expect((await other.agents.transitions({ ...EVERYTHING, afterRevision })).rows).toHaveLength(1);
  }
});

test("filters select the same transitions as a reader of the whole log would, in pages of any size", async () => {
  const { rows } = await list();
  const [, second] = rows;
  await storage.query("UPDATE agent_transitions SET incident_id = 'i' WHERE revision = $1", [second?.revision]);
  const claws = ["claw-1", "claw-2", "claw-3", "nowhere"];
  const filters: [Partial<TransitionQuery>, (one: Transition) => boolean][] = [
    ...claws.map((claw): [Partial<TransitionQuery>, (one: Transition) => boolean] => [
      { clawIdentifier: claw },
      ({ fromClaw, toClaw }) => fromClaw === claw || toClaw === claw,
    ]),
    [{ causes: ["created"] }, ({ cause }) => cause === "created"],
    [{ causes: ["moved", "created", "moved"] }, ({ cause }) => cause === "moved" || cause === "created"],
    [{ causes: ["goodbye"] }, () => false],
    [
      { causes: ["created"], clawIdentifier: "claw-1" },
      ({ cause, toClaw }) => cause === "created" && toClaw === "claw-1",
    ],
    [{ incidentId: "i" }, ({ revision }) => revision === second?.revision],
    [{ incidentId: "i", causes: ["moved"] }, () => false],
    ...rows.map(({ occurredAt }): [Partial<TransitionQuery>, (one: Transition) => boolean] => [
      { since: occurredAt },
      (one) => one.occurredAt >= occurredAt,
    ]),
    [{ since: 0 }, () => true],
    [{ since: (rows.at(-1)?.occurredAt ?? 0) + 1 }, () => false],
    [{ agentId: "painter-1", causes: ["moved"] }, ({ agentId, cause }) => agentId === "painter-1" && cause === "moved"],
    [
      { scope: { kind: "agents", agentIds: new Set(["painter-1"]) }, incidentId: "i" },
      ({ revision }) => revision === second?.revision,
    ],
    [{ scope: { kind: "agents", agentIds: new Set(["scribe-7"]) }, incidentId: "i" }, () => false],
    [
      { scope: { kind: "agents", agentIds: new Set(["painter-1"]) }, causes: ["created"] },
      ({ agentId, cause }) => agentId === "painter-1" && cause === "created",
    ],
    [
      { scope: { kind: "claw", clawIdentifier: "claw-3" }, causes: ["moved"] },
      ({ agentId, cause }) => agentId === "painter-1" && cause === "moved",
    ],
    [{ scope: { kind: "claw", clawIdentifier: "claw-3" }, clawIdentifier: "claw-1" }, () => false],
    [{ scope: { kind: "claw", clawIdentifier: "claw-3" }, incidentId: "i" }, () => false],
  ];
  for (const [query, passes] of filters) {
    const all = (await list()).rows;
    const expected = all.filter(passes);
    for (const limit of [1, 2, 100]) {
      expect(await inPages(query, limit), JSON.stringify(query, textOf)).toEqual(expected);
      expect(await inPages({ ...query, newestFirst: true }, limit)).toEqual(expected.toReversed());
    }
    const afterRevision = all[2]?.revision ?? 0n;
    expect(await inPages({ ...query, afterRevision }, 1)).toEqual(
      expected.filter(({ revision }) => revision > afterRevision),
    );
  }
});

function textOf(_: string, value: unknown): unknown {
  return typeof value === "bigint" || value instanceof Set ? String(value) : value;
}
