import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { namedQuery } from "../../src/storage/queries.ts";
import { PACE, SimulatedFleet } from "../support/simulated-fleet.ts";

/** A statement takes real time, on a busy machine seconds. */
const REAL_MS = 4_000;

let fleet: SimulatedFleet;
let replica: number;
beforeAll(async () => {
  fleet = await SimulatedFleet.open();
});
afterAll(() => fleet[Symbol.asyncDispose]());

let tests = 0;
beforeEach(async () => {
  await fleet.clear();
  replica = await fleet.start();
  tests += 1;
});

/**
 * The fleet statistics report so many claws. @returns one agent with a heartbeat for each of the first `count`
 * claws
 */
async function heardClaws(claws: number, count: number): Promise<string[]> {
  await fleet.query(
    "UPDATE fleet_state SET claws = $1, agents = $1, interval_ms = $2, lease_ms = $3",
    claws,
    PACE.intervalMs,
    PACE.leaseMs,
  );
  const agentIds: string[] = [];
  for (let claw = 1; claw <= count; claw += 1) {
    agentIds.push(...(await fleet.seedAgents(1, `test ${tests}, claw ${claw}, agent `)));
  }
  await fleet.hear(replica, agentIds);
  return agentIds;
}

/** Expires the leases of these agents, and of no others. @returns the agents that are offline at once */
async function fallSilent(agentIds: readonly string[]): Promise<string[]> {
  await fleet.query(
    `UPDATE agent_liveness SET lease_expires_at = clock_timestamp() - interval '1 millisecond'
     WHERE agent IN (SELECT id FROM agents WHERE agent_id = ANY ($1))`,
    agentIds,
  );
  await fleet.listen(replica);
  return await fleet.endLeases();
}

async function isEngaged(): Promise<boolean> {
  const [state] = await fleet.query<{ engaged: boolean }>(
    "SELECT brake_engaged_at IS NOT NULL AS engaged FROM fleet_state",
  );
  return state?.engaged === true;
}

describe("the threshold of the brake", () => {
  test.each([
    // A fifth of the claws, and one claw fewer or more.
    { claws: 100, silent: 19, engages: false },
    { claws: 100, silent: 20, engages: false },
    { claws: 100, silent: 21, engages: true },
    // A fifth that is not a whole number of claws.
    { claws: 14, silent: 2, engages: false },
    { claws: 14, silent: 3, engages: true },
    { claws: 16, silent: 3, engages: false },
    { claws: 16, silent: 4, engages: true },
    // The minimum number of claws.
    { claws: 15, silent: 3, engages: false },
    { claws: 2, silent: 2, engages: false },
    { claws: 3, silent: 3, engages: true },
  ])("$silent silent claws of $claws: engages is $engages", async ({ claws, silent, engages }) => {
    const agentIds = await heardClaws(claws, silent);
    const offline = await fallSilent(agentIds);
    expect({ engages: await isEngaged(), offline: offline.length }).toEqual({
      engages,
      offline: engages ? 0 : silent,
    });
  });

  test("counts claws that fall silent one after the other within one lease", async () => {
    const agentIds = await heardClaws(100, 21);
    expect(await fallSilent(agentIds.slice(0, 20))).toHaveLength(20);
    expect(await fleet.listening(PACE.leaseMs - REAL_MS, replica)).toEqual([]);
    expect(await fallSilent(agentIds.slice(20))).toEqual([]);
    expect(await isEngaged()).toBe(true);
  });

  test("does not count a claw that fell silent more than one lease ago", async () => {
    const agentIds = await heardClaws(100, 21);
    expect(await fallSilent(agentIds.slice(0, 20))).toHaveLength(20);
    expect(await fleet.listening(PACE.leaseMs / 2, replica)).toEqual([]);
    await fleet.renew(agentIds.slice(20));
    expect(await fleet.listening(PACE.leaseMs / 2, replica)).toEqual([]);
    expect(await fallSilent(agentIds.slice(20))).toHaveLength(1);
    expect(await isEngaged()).toBe(false);
  });

  test("does not count a claw with another agent that still sends heartbeats", async () => {
    const agentIds = await heardClaws(100, 21);
    const [alsoThere = ""] = await fleet.seedAgents(1, `test ${tests}, another agent `);
    await fleet.query(
      "UPDATE agents SET claw_identifier = (SELECT claw_identifier FROM agents WHERE agent_id = $1) WHERE agent_id = $2",
      agentIds[0],
      alsoThere,
    );
    await fleet.hear(replica, [alsoThere]);
    expect(await fallSilent(agentIds)).toHaveLength(21);
    expect(await isEngaged()).toBe(false);
  });
});

describe("the release of the brake", () => {
  const checkBrake = () => fleet.query(namedQuery("check-brake").text);

  test.each([
    { held: 21, released: false },
    { held: 20, released: true },
    { held: 19, released: true },
  ])("with $held claws of 100 held back, one lease after they fell silent: $released", async ({ held, released }) => {
    const agentIds = await heardClaws(100, 21);
    expect(await fallSilent(agentIds)).toEqual([]);
    await checkBrake();
    expect(await isEngaged()).toBe(true);
    await fleet.pass(PACE.leaseMs);
    await fleet.hear(replica, agentIds.slice(held));
    await checkBrake();
    expect(await isEngaged()).toBe(!released);
  });

  test("does not happen while the silences of the last lease are a mass silence, although no agent is held back", async () => {
    const agentIds = await heardClaws(100, 21);
    await fallSilent(agentIds);
    await fleet.hear(replica, agentIds);
    await checkBrake();
    expect(await isEngaged()).toBe(true);
  });
});
