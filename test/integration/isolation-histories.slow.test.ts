import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { HEARING, PACE, SimulatedFleet } from "../support/simulated-fleet.ts";

/** Half the time that makes a replica isolated: one turn without its refresh does not. */
const TURN_MS = HEARING.isolatedAfterMs / 2;
const REPLICAS = 3;
const { leaseMs, intervalMs } = PACE;
/** A statement takes real time, seconds on a busy machine, which the simulation does not count. */
const REAL_MS = 4_000;

/** One turn: what happens to a replica before it, and where a heartbeat of a new stream goes. */
const turn = fc.record({
  replica: fc.nat(REPLICAS - 1),
  // Most turns change nothing, so that outages of all lengths, and guards that end, occur.
  event: fc.constantFrom(
    "nothing",
    "nothing",
    "nothing",
    "nothing",
    "isolate",
    "return",
    "die",
    "start",
    "stop",
    "isolate all",
  ),
  order: fc.boolean(),
});
const history = fc.record({
  turns: fc.array(turn, { minLength: 20, maxLength: 50 }),
  // The time until the watching replica receives a beat of each agent, after that replica is back: almost a
  // lease.
  reconnectMs: fc.array(fc.integer({ min: 0, max: leaseMs - 2 * TURN_MS }), { minLength: 3, maxLength: 3 }),
});
type History = typeof history extends fc.Arbitrary<infer Value> ? Value : never;

interface Place {
  number: number;
  state: "listens" | "isolated" | "dead";
}

interface Agent {
  readonly agentId: string;
  readonly reconnectMs: number;
  /** The replica that receives its heartbeats, while that is its own. */
  at: number | undefined;
  heardAt: number;
  /** The replica that watches it, and since when that one has been up without a pause. */
  watcher: number | undefined;
  watchedSince: number;
}

let fleet: SimulatedFleet;
beforeAll(async () => {
  fleet = await SimulatedFleet.open();
});
afterAll(() => fleet[Symbol.asyncDispose]());

let histories = 0;

/**
 * The watching replica receives a beat of agents that retry, some time after it is up: they are never offline.
 * Agents that stopped are offline one lease after the service is back.
 */
async function live({ turns, reconnectMs }: History): Promise<void> {
  await fleet.clear();
  const name = `history ${++histories}`;
  const trying = await fleet.seedAgents(reconnectMs.length, `${name} tries-`);
  const silent = await fleet.seedAgents(REPLICAS, `${name} silent-`);
  const places: Place[] = [];
  for (let place = 0; place < REPLICAS; place++) places.push({ number: await fleet.start(), state: "listens" });
  let now = await fleet.now();
  const agents: Agent[] = trying.map((agentId, index) => ({
    agentId,
    reconnectMs: reconnectMs[index] ?? 0,
    at: places[index % REPLICAS]?.number,
    heardAt: now,
    watcher: undefined,
    watchedSince: now,
  }));
  for (const [index, { number }] of places.entries()) {
    await fleet.hear(number, [...trying.slice(index, index + 1), ...silent.slice(index, index + 1)]);
  }

  const listens = (number: number | undefined) =>
    places.some((place) => place.number === number && place.state === "listens");

  const expired: string[] = [];
  /** A replica that is up refreshes and receives its heartbeats; all ended leases are tried again and again. */
  async function takeTurn(order: boolean): Promise<void> {
    await fleet.pass(TURN_MS);
    const awake = places.filter(({ state }) => state === "listens");
    if (order) awake.reverse();
    // Before any replica has noticed anything.
    if (awake.length > 0) expired.push(...(await fleet.endLeases()));
    for (const { number } of awake) {
      await fleet.listen(number);
      expired.push(...(await fleet.endLeases()));
    }
    now = await fleet.now();
    for (const agent of agents) await beat(agent);
  }

  async function beat(agent: Agent): Promise<void> {
    if (listens(agent.at)) {
      if (now - agent.heardAt < intervalMs - TURN_MS) return;
      await fleet.renew([agent.agentId]);
      agent.heardAt = now;
      return;
    }
    const { replica, adopter } = await fleet.watcherOf(agent.agentId);
    const watcher = adopter ?? replica ?? undefined;
    if (watcher === undefined) return;
    if (!listens(watcher) || agent.watcher !== watcher) {
      agent.watcher = watcher;
      agent.watchedSince = now;
    }
    if (!listens(watcher) || now - agent.watchedSince < agent.reconnectMs) return;
    await fleet.hear(watcher, [agent.agentId]);
    agent.at = watcher;
    agent.heardAt = now;
    agent.watcher = undefined;
  }

  async function befall(place: Place, event: string): Promise<void> {
    if (event === "isolate" && place.state === "listens") place.state = "isolated";
    else if (event === "return" && place.state === "isolated") place.state = "listens";
    else if (event === "die") place.state = "dead";
    else if (event === "stop" && place.state === "listens") {
      place.state = "dead";
      await fleet.query("UPDATE replicas SET seen_at = '-infinity' WHERE id = $1", place.number);
    } else if (event === "start" && place.state === "dead") {
      place.number = await fleet.start();
      place.state = "listens";
    } else if (event === "isolate all")
      for (const other of places) if (other.state === "listens") other.state = "isolated";
  }

  for (const { replica, event, order } of turns) {
    const place = places[replica];
    if (place !== undefined) await befall(place, event);
    await takeTurn(order);
    expect(expired.filter((agentId) => trying.includes(agentId))).toEqual([]);
  }

  // The service is back: every isolated replica returns; at least one is up.
  for (const place of places) await befall(place, "return");
  const [first] = places;
  if (first !== undefined && places.every(({ state }) => state === "dead")) await befall(first, "start");
  const back = now;
  // One lease of grace until it is known which agents are gone, and the time until the next attempt.
  const due = back + 2 * HEARING.isolatedAfterMs + leaseMs + HEARING.isolatedAfterMs + 2 * TURN_MS + REAL_MS;
  while (now < due) await takeTurn(true);
  expect(expired.toSorted()).toEqual(silent.toSorted());
}

test("agents that retry are never offline and silent ones are soon, whatever happens to the replicas", {
  timeout: 120_000,
}, async () => {
  await fc.assert(fc.asyncProperty(history, live), { numRuns: 12, endOnFailure: true });
});
