import { afterEach, describe, expect, test, vi } from "vitest";
import { createTestDatabase } from "../support/cluster.ts";
import { tryStream } from "../support/cut-off-scene.ts";
import {
  Beating,
  backdate,
  beatOnce,
  databaseNow,
  expiries,
  fleetGuard,
  KeptLog,
  leaseEnd,
  livenessVersions,
  MS,
  openReplicas,
  rowOf,
  untilExpired,
  untilThen,
} from "../support/fleet-scene.ts";
import { DatabaseProxy } from "../support/gate-proxy.ts";
import { openReplica } from "../support/replica.ts";
import { alive } from "../support/replica-stream.ts";
import { until } from "../support/until.ts";

/** A replica that is silent for this long is isolated; after twice as long it is adopted. */
const INTERVAL_MS = 400;
const LEASE_MS = 3 * INTERVAL_MS;
/** In milliseconds. A lease that expires later was found by the scan of all leases, which runs each 30 s. */
const PROMPT_MS = 15_000;

let undo = new AsyncDisposableStack();
afterEach(async () => {
  await undo.disposeAsync();
  undo = new AsyncDisposableStack();
});

const PACE = { intervalMs: INTERVAL_MS, firstLeaseMs: 60_000 };

function offlineAt(
  expired: readonly { readonly agent_id: string; readonly at: number }[],
  agentIds: readonly string[],
) {
  return expired.filter(({ agent_id }) => agentIds.includes(agent_id)).map(({ at }) => at);
}

describe("a replica that was isolated while another one was not", () => {
  test("gives its agents a whole lease from its return; other agents expire as usual", async () => {
    const log = new KeptLog();
    const connectedLog = new KeptLog();
    const [connected, isolated = connected] = await openReplicas(
      undo,
      { ...PACE, log: connectedLog },
      { ...PACE, log },
    );
    const lost = await connected.seedAgents(20, "of the isolated-");
    const usual = await connected.seedAgents(20, "of the other-");
    const usualEnd = await beatOnce(connected, usual);
    await untilThen(connected, usualEnd - 600 * MS);
    await beatOnce(isolated, lost);
    // Isolated, but not for long enough to be adopted.
    const before = await databaseNow(connected);
    await backdate(isolated, connected, 1.5 * INTERVAL_MS);
    // A replica that starts on a busy machine may have noticed an earlier isolation of its own.
    const guard = await until("it is noticed", async () => {
      const noticed = (await rowOf(isolated, connected))?.until ?? 0;
      return noticed >= before + LEASE_MS * MS ? noticed : undefined;
    });

    const expired = await untilExpired(connected, 40);
    expect(Math.min(...offlineAt(expired, lost))).toBeGreaterThanOrEqual(guard);
    expect(Math.max(...offlineAt(expired, lost))).toBeLessThan(guard + PROMPT_MS * MS);
    expect(offlineAt(expired, usual)).toHaveLength(20);
    expect(log.of("replica.isolated")).not.toEqual([]);
    // A busy machine can isolate the other replica, too.
    if (connectedLog.of("replica.isolated").length > 0) return;
    expect((await rowOf(connected, connected))?.until).toBeNull();
    expect(await fleetGuard(connected)).toBeNull();
  });

  test("its agents are adopted without a write to an agent's row: by adoption, by second adoption, by return", async () => {
    // Ten seconds: no lease ends meanwhile.
    const idle = { started: false };
    const [watcher, dead = watcher, adopter = watcher] = await openReplicas(undo, idle, idle, {});
    const agentIds = await watcher.seedAgents(50, "calm-");
    const beat = dead.stream();
    await beat.say(...agentIds.map(alive));
    // An agent of the adopter itself, which keeps the adopter's row.
    const [own = ""] = await watcher.seedAgents(1, "own-");
    await adopter.stream().say(alive(own));
    const before = await livenessVersions(watcher);

    await backdate(dead, watcher, 60_000);
    const adopted = await until("it is adopted", async () => {
      const row = await rowOf(dead, watcher);
      return row?.adopted_by === adopter.number && row;
    });
    expect(adopted.until).toBeGreaterThan((await databaseNow(watcher)) + 25_000_000);
    await until("the adopter watches", () => adopter.liveness.statistics().agents === 51);

    // The adopter freezes for longer than allowed; the next replica adopts both.
    using frozen = adopter.gate.hold("refresh-replica");
    await frozen.arrived();
    await backdate(adopter, watcher, 60_000);
    const heir = undo.use(await openReplica(watcher.url));
    await until("both are adopted", async () => {
      const rows = [await rowOf(dead, watcher), await rowOf(adopter, watcher)];
      return rows.every((row) => row?.adopted_by === heir.number);
    });
    // The outage of the adopter counts too: a whole lease from the second adoption.
    expect((await rowOf(dead, watcher))?.until).toBeGreaterThan(adopted.until ?? Number.POSITIVE_INFINITY);
    expect((await rowOf(dead, watcher))?.until).toBeGreaterThan((await databaseNow(watcher)) + 25_000_000);
    await until("the heir watches", () => heir.liveness.statistics().agents === 51);

    // It returns: it watches its own agents, not those that it had adopted.
    frozen.release();
    await until("it is its own again", async () => (await rowOf(adopter, watcher))?.adopted_by === null);
    expect((await rowOf(dead, watcher))?.adopted_by).toBe(heir.number);
    expect(await livenessVersions(watcher)).toEqual(before);
    expect(await expiries(watcher)).toEqual([]);
  });

  test("takes back the watch of its agents from its adopter when it returns", async () => {
    const [adopter, sleeper = adopter] = await openReplicas(undo, PACE, { ...PACE, started: false });
    const agentIds = await adopter.seedAgents(10, "awakened-");
    using stream = sleeper.stream();
    using _beating = new Beating(() => stream, agentIds, 100);
    await until("they are held, by leases as they are here", () => stream.acknowledged > 1n);
    await backdate(sleeper, adopter, 60_000);
    await until("they are watched", () => adopter.liveness.statistics().agents === 10);
    await sleeper.liveness.start();
    await until("it is its own again", async () => (await rowOf(sleeper, adopter))?.adopted_by === null);
    await until("they are watched no more", () => adopter.liveness.statistics().agents === 0);
    expect(await expiries(adopter)).toEqual([]);
  });

  test("is adopted completely, also when the response to the adoption is lost", async () => {
    const [adopter, dead = adopter] = await openReplicas(undo, PACE, { ...PACE, started: false });
    const agentIds = await adopter.seedAgents(10, "answer lost-");
    await beatOnce(dead, agentIds);
    using pages = adopter.gate.hold("adopted-leases", "before", 1);
    adopter.gate.loseAnswer("adopt-replicas");
    await backdate(dead, adopter, 60_000);
    await pages.arrived();
    adopter.gate.loseAnswer("adopted-leases");
    pages.release();
    const guard = await until("it is adopted", async () => (await rowOf(dead, adopter))?.until ?? undefined);
    const expired = await untilExpired(adopter, 10);
    expect(Math.min(...expired.map(({ at }) => at))).toBeGreaterThanOrEqual(guard);
    expect(Math.max(...expired.map(({ at }) => at))).toBeLessThan(guard + PROMPT_MS * MS);
    await until("it is forgotten", async () => (await rowOf(dead, adopter)) === undefined);
  });
});

describe("a replica that loses the database while another one does not", () => {
  test("counts as isolated when it loses only the connections for heartbeats", async () => {
    const [fine, stuck = fine] = await openReplicas(undo, PACE, PACE);
    const agentIds = await fine.seedAgents(10, "stuck-");
    using stream = await until("it takes streams", () => tryStream(stuck));
    const asked = vi.spyOn(stream.session, "drain");
    using _beating = new Beating(() => stream, agentIds, 100);
    await until("they are held", () => stream.acknowledged > 1n);
    using held = stuck.gate.hold("renew-leases");
    await held.arrived();
    const end = Math.max(...(await Promise.all(agentIds.map((agentId) => leaseEnd(fine, agentId)))));
    await until("its streams are asked to go elsewhere", () => asked.mock.calls.length === 1);
    await untilThen(fine, end + 300 * MS);
    expect(await expiries(fine)).toEqual([]);
    held.release();
    const acknowledged = stream.acknowledged;
    await until("its beats are acknowledged", () => stream.acknowledged > acknowledged + 5n);
    await until("it is its own", async () => (await rowOf(stuck, fine))?.adopted_by === null);
    expect(await expiries(fine)).toEqual([]);
  });

  test("retries the next time", async () => {
    const { url } = undo.use(await createTestDatabase());
    const proxy = undo.use(await DatabaseProxy.open(url));
    const cut = undo.use(await openReplica(proxy.url, { intervalMs: 200 }));
    using stream = await until("it takes streams", () => tryStream(cut));
    const asked = vi.spyOn(stream.session, "drain");
    for (const time of [1, 2]) {
      proxy.cut();
      await until("it is asked", () => asked.mock.calls.length === time);
      proxy.mend();
      await until(
        "it can write",
        async () => (await cut.createAgent(`time ${time}`).catch(() => undefined)) !== undefined,
      );
      const [agent] = [`time ${time}`];
      await stream.say(alive(agent));
      await until("it says that it listens", async () => {
        const [row] = await cut.query<{ heard: boolean }>(
          "SELECT seen_at > clock_timestamp() - interval '150 milliseconds' AS heard FROM replicas",
        );
        return row?.heard;
      });
    }
  });
});
