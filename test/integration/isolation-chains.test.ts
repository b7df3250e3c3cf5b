import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { HEARING, PACE, REFRESH_MS, SimulatedFleet } from "../support/simulated-fleet.ts";

const LEASE_MS = PACE.leaseMs;
/** A replica that is silent for longer than this is adopted by the next one that refreshes. */
const ADOPTED_MS = 2 * HEARING.isolatedAfterMs + REFRESH_MS;
/** A statement takes real time, seconds on a busy machine; all intervals in this file are longer. */
const REAL_MS = 4_000;

let fleet: SimulatedFleet;
let agentIds: string[];
beforeAll(async () => {
  fleet = await SimulatedFleet.open();
});
afterAll(() => fleet[Symbol.asyncDispose]());

let tests = 0;
beforeEach(async () => {
  await fleet.clear();
  agentIds = await fleet.seedAgents(3, `agent of test ${++tests}-`);
});

/**
 * While these replicas are up, the leases of silent agents end one lease of grace from now: not earlier, and
 * barely later.
 */
async function expectOneLeaseOfGrace(...listening: readonly number[]): Promise<void> {
  expect(await fleet.endLeases()).toEqual([]);
  expect(await fleet.listening(LEASE_MS - REAL_MS, ...listening)).toEqual([]);
  expect((await fleet.listening(2 * REAL_MS + HEARING.isolatedAfterMs, ...listening)).toSorted()).toEqual(agentIds);
}

/**
 * A replica receives heartbeats of the agents and fails; another one adopts it. @returns the numbers of both
 */
async function adopted(): Promise<{ dead: number; adopter: number }> {
  const dead = await fleet.start();
  const adopter = await fleet.start();
  await fleet.hear(dead, agentIds);
  await fleet.listening(ADOPTED_MS, adopter);
  expect(await fleet.watcherOf(agentIds[0] ?? "")).toMatchObject({ replica: dead, adopter });
  return { dead, adopter };
}

describe("the agents of an adopted replica keep their leases", () => {
  test("while the only other replica, their adopter, is isolated, and for one lease after it is back", async () => {
    const { adopter } = await adopted();
    await fleet.pass(3 * LEASE_MS);
    // The database is back, and the adopter tries to expire leases before it refreshes its own row.
    expect(await fleet.endLeases()).toEqual([]);
    await fleet.listen(adopter);
    await expectOneLeaseOfGrace(adopter);
  });

  test("while the adopter is isolated, too briefly to be adopted, and other replicas are up", async () => {
    const other = await fleet.start();
    const { adopter } = await adopted();
    expect(await fleet.listening(LEASE_MS - REAL_MS, other, adopter)).toEqual([]);
    expect(await fleet.listening(HEARING.isolatedAfterMs + REAL_MS, other)).toEqual([]);
    await fleet.listen(adopter);
    await expectOneLeaseOfGrace(other, adopter);
  });

  test("when the adopter fails, and for one lease after the next replica adopts them", async () => {
    const heir = await fleet.start();
    const { dead } = await adopted();
    expect(await fleet.listening(LEASE_MS - REAL_MS, heir)).toEqual([]);
    expect(await fleet.watcherOf(agentIds[0] ?? "")).toMatchObject({ replica: dead, adopter: heir });
    // The second adoption, one adoption ago; the outage before it does not count again.
    const { guard } = await fleet.watcherOf(agentIds[0] ?? "");
    expect(guard).not.toBeNull();
    expect(await fleet.listening(ADOPTED_MS - REAL_MS, heir)).toEqual([]);
    const gone = await fleet.listening(LEASE_MS + 2 * REAL_MS, heir);
    expect(gone.toSorted()).toEqual(agentIds);
  });

  test("when the adopter fails during its isolation, no other replica is up, and another one starts", async () => {
    await adopted();
    await fleet.pass(3 * LEASE_MS);
    const next = await fleet.start();
    expect(await fleet.endLeases()).toEqual([]);
    await fleet.listen(next);
    await expectOneLeaseOfGrace(next);
  });

  test("when the adopter and others lose the database, and one of the others is back first", async () => {
    const other = await fleet.start();
    const { adopter } = await adopted();
    await fleet.listening(REFRESH_MS, other, adopter);
    await fleet.pass(3 * LEASE_MS);
    expect(await fleet.endLeases()).toEqual([]);
    await fleet.listen(other);
    await expectOneLeaseOfGrace(other);
  });

  test("when a chain of adopters fails, each shortly before its guard is over", async () => {
    await adopted();
    for (let link = 0; link < 3; link++) {
      const heir = await fleet.start();
      expect(await fleet.listening(LEASE_MS - REAL_MS, heir)).toEqual([]);
    }
    const last = await fleet.start();
    expect(await fleet.listening(ADOPTED_MS, last)).toEqual([]);
    await expectOneLeaseOfGrace(last);
  });

  test("when the adopter stops in order, and another replica takes over", async () => {
    const other = await fleet.start();
    const { adopter } = await adopted();
    expect(await fleet.listening(LEASE_MS / 2, other, adopter)).toEqual([]);
    await fleet.query("UPDATE replicas SET seen_at = '-infinity' WHERE id = $1", adopter);
    expect(await fleet.endLeases()).toEqual([]);
    await fleet.listen(other);
    await expectOneLeaseOfGrace(other);
  });

  test("when the row of their adopter is gone, until another replica adopts them", async () => {
    const other = await fleet.start();
    const { adopter } = await adopted();
    expect(await fleet.listening(LEASE_MS - REAL_MS, other, adopter)).toEqual([]);
    await fleet.query("DELETE FROM replicas WHERE id = $1", adopter);
    await fleet.pass(2 * REAL_MS);
    expect(await fleet.endLeases()).toEqual([]);
    await fleet.listen(other);
    await expectOneLeaseOfGrace(other);
  });

  test("when their adopter was itself adopted meanwhile, and has not noticed it", async () => {
    const other = await fleet.start();
    const { dead, adopter } = await adopted();
    // It was frozen between its refresh and the adoption.
    await fleet.query("UPDATE replicas SET adopted_by = $2 WHERE id = $1", adopter, other);
    await fleet.query("UPDATE replicas SET no_lease_ends_before = clock_timestamp() WHERE id = $1", dead);
    await fleet.pass(LEASE_MS);
    await fleet.query("UPDATE replicas SET seen_at = clock_timestamp() WHERE id = $1", other);
    expect(await fleet.endLeases()).toEqual([]);
    await fleet.listen(other);
    expect(await fleet.watcherOf(agentIds[0] ?? "")).toMatchObject({ replica: dead, adopter: other });
    await expectOneLeaseOfGrace(other);
  });
});

describe("the agents of a replica that returns after it was adopted keep their leases", () => {
  test("when the adopter was isolated meanwhile, and the returning replica expires leases before its refresh", async () => {
    const { dead, adopter } = await adopted();
    await fleet.pass(3 * LEASE_MS);
    expect(await fleet.endLeases()).toEqual([]);
    await fleet.listen(dead);
    expect(await fleet.watcherOf(agentIds[0] ?? "")).toMatchObject({ replica: dead, adopter: null });
    await fleet.listen(adopter);
    await expectOneLeaseOfGrace(dead, adopter);
  });

  test("for one lease after its return; the agents it had adopted stay with its adopter", async () => {
    const heir = await fleet.start();
    const { dead, adopter } = await adopted();
    const own = await fleet.seedAgents(1, `own of test ${tests}-`);
    await fleet.hear(adopter, own);
    await fleet.listening(ADOPTED_MS + REFRESH_MS, heir);
    await fleet.listen(adopter);
    expect(await fleet.watcherOf(own[0] ?? "")).toMatchObject({ replica: adopter, adopter: null });
    expect(await fleet.watcherOf(agentIds[0] ?? "")).toMatchObject({ replica: dead, adopter: heir });
    expect(await fleet.listening(LEASE_MS - REAL_MS - REFRESH_MS, heir, adopter)).toEqual([]);
    const gone = await fleet.listening(2 * REAL_MS + REFRESH_MS, heir, adopter);
    expect(gone.toSorted()).toEqual([...agentIds, ...own].toSorted());
  });
});

describe("two replicas that are isolated one after the other", () => {
  test("when the second one has adopted the first: its agents have a lease when the second one is back", async () => {
    const first = await fleet.start();
    const second = await fleet.start();
    const third = await fleet.start();
    await fleet.hear(first, agentIds);
    expect(await fleet.listening(ADOPTED_MS, second)).toEqual([]);
    await fleet.listen(third);
    expect(await fleet.listening(LEASE_MS - REAL_MS, second, third)).toEqual([]);
    expect(await fleet.listening(HEARING.isolatedAfterMs + REAL_MS, third)).toEqual([]);
    await fleet.listen(second);
    await expectOneLeaseOfGrace(second, third);
  });

  test("when the agents moved to the second one: their leases follow the outage of the second one", async () => {
    const first = await fleet.start();
    const second = await fleet.start();
    await fleet.hear(first, agentIds);
    await fleet.listening(HEARING.isolatedAfterMs + REFRESH_MS, second);
    await fleet.hear(second, agentIds);
    await fleet.listen(first);
    // The first replica adopts the second one, which returns; its agents have a lease from then on.
    expect(await fleet.listening(LEASE_MS, first)).toEqual([]);
    await fleet.listen(second);
    await expectOneLeaseOfGrace(first, second);
  });
});

describe("an agent whose replica has no row", () => {
  async function lost(): Promise<number> {
    const gone = await fleet.start();
    const listens = await fleet.start();
    await fleet.hear(gone, agentIds);
    await fleet.query("DELETE FROM replicas WHERE id = $1", gone);
    return listens;
  }

  test("keeps its lease while every replica is isolated and none has noticed it, and for one lease after that", async () => {
    const listens = await lost();
    await fleet.pass(3 * LEASE_MS);
    expect(await fleet.endLeases()).toEqual([]);
    await fleet.listen(listens);
    await expectOneLeaseOfGrace(listens);
  });

  test("keeps its lease while there is no replica at all, and for one lease after one starts", async () => {
    const listens = await lost();
    await fleet.query("DELETE FROM replicas WHERE id = $1", listens);
    await fleet.pass(3 * LEASE_MS);
    expect(await fleet.endLeases()).toEqual([]);
    const next = await fleet.start();
    await expectOneLeaseOfGrace(next);
  });

  test("loses its lease as usual while a replica is up", async () => {
    const listens = await lost();
    expect(await fleet.listening(LEASE_MS - REAL_MS, listens)).toEqual([]);
    expect((await fleet.listening(2 * REAL_MS, listens)).toSorted()).toEqual(agentIds);
  });
});

describe("an agent that another replica claims", () => {
  test("keeps its lease from the claim on, also when only a guard of its former replica had kept it", async () => {
    const { adopter } = await adopted();
    await fleet.pass(3 * LEASE_MS);
    await fleet.listen(adopter);
    await fleet.claim(adopter, agentIds);
    const third = await fleet.start();
    // The replica failed before it could write the heartbeat of the claim: its own guards count.
    await fleet.claim(third, agentIds);
    await fleet.query("UPDATE fleet_state SET no_lease_ends_before = NULL");
    expect(await fleet.endLeases()).toEqual([]);
    expect(await fleet.listening(ADOPTED_MS, adopter)).toEqual([]);
    await expectOneLeaseOfGrace(adopter);
  });

  test("does not come back online by the claim alone", async () => {
    const { adopter } = await adopted();
    await fleet.listening(ADOPTED_MS + LEASE_MS + REAL_MS, adopter);
    await fleet.claim(adopter, agentIds);
    expect(await fleet.agents.get({ agentId: agentIds[0] ?? "" })).toMatchObject({
      status: "offline",
      leaseExpiresAt: null,
    });
  });

  test("keeps the longer lease that a unary heartbeat requested", async () => {
    const replica = await fleet.start();
    await fleet.hear(replica, agentIds);
    await fleet.renew(agentIds, 3_600_000);
    const before = await fleet.agents.get({ agentId: agentIds[0] ?? "" });
    await fleet.claim(replica, agentIds);
    const { leaseExpiresAt } = await fleet.agents.get({ agentId: agentIds[0] ?? "" });
    expect(leaseExpiresAt).toBe(before.leaseExpiresAt);
  });
});

describe("an agent whose lease is longer than the fleet's", () => {
  const LONG_MS = 20 * LEASE_MS;

  test("has its whole own lease to send a heartbeat after an outage, since it beats less often", async () => {
    const replica = await fleet.start();
    await fleet.hear(replica, agentIds);
    await fleet.renew(agentIds, LONG_MS);
    await fleet.pass(LONG_MS + LEASE_MS);
    expect(await fleet.endLeases()).toEqual([]);
    await fleet.listen(replica);
    expect(await fleet.listening(2 * LEASE_MS, replica)).toEqual([]);
    // Most of it at once: the statements of a replica are never further apart than the isolation limit.
    while ((await leaseLeft(LONG_MS)) > REAL_MS + HEARING.isolatedAfterMs) {
      await fleet.pass(HEARING.isolatedAfterMs - REAL_MS);
      await fleet.listen(replica);
      expect(await fleet.endLeases()).toEqual([]);
    }
    expect((await fleet.listening(3 * REAL_MS + HEARING.isolatedAfterMs, replica)).toSorted()).toEqual(agentIds);
  });

  /**
   * The guard of the fleet, or the rest of a lease of the same length that began when the service was back; the
   * longer one.
   */
  async function leaseLeft(longMs: number): Promise<number> {
    const [row] = await fleet.query<{ left: number }>(
      "SELECT extract(epoch FROM no_lease_ends_before - clock_timestamp())::float8 * 1000 AS left FROM fleet_state",
    );
    return (row?.left ?? 0) + longMs - LEASE_MS;
  }

  test("has no more than a lease of the fleet after a move, however old its last heartbeat is", async () => {
    const replica = await fleet.start();
    await fleet.hear(replica, agentIds);
    await fleet.renew(agentIds, LONG_MS);
    await fleet.listening(LEASE_MS, replica);
    // A first lease, granted by a move: its row keeps the last heartbeat of long ago.
    for (const agentId of agentIds) {
      await fleet.agents.move(agentId, `elsewhere ${tests}`, { actor: "service:calendar", request: undefined });
    }
    await fleet.query("UPDATE agent_liveness SET replica_id = $1", replica);
    await fleet.pass(3 * LEASE_MS);
    await fleet.listen(replica);
    // The first leases in this test last a minute: two leases of the fleet.
    expect(await fleet.listening(2 * LEASE_MS - REAL_MS, replica)).toEqual([]);
    expect((await fleet.listening(3 * REAL_MS, replica)).toSorted()).toEqual(agentIds);
  });
});

test("a replica that restarts again and again does not postpone the expiry of other agents", async () => {
  const { adopter } = await adopted();
  const gone: string[] = [];
  for (let time = 0; time < 8; time++) {
    const crashing = await fleet.start();
    gone.push(...(await fleet.listening(REFRESH_MS, crashing, adopter)));
    gone.push(...(await fleet.listening(LEASE_MS / 6, adopter)));
  }
  expect(gone.toSorted()).toEqual(agentIds);
});
