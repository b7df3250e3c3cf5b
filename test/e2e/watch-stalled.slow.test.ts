import { expect, test } from "vitest";
import { startService } from "../support/service.ts";
import { until } from "../support/until.ts";
import { History, type MessageJson } from "../watch-check/history.ts";
import { readLog } from "../watch-check/log.ts";
import { call, openWatch } from "../watch-check/wire.ts";

const AGENTS = Array.from({ length: 100 }, (_, n) => `agent-${n}`);
const ROUNDS = 20;
/** A hang's limit, also on a busy machine. */
const LONG_MS = 30_000;

/** A watcher on a connection of its own, and its messages. */
function watch(base: string, conflate: boolean) {
  const history = new History(conflate ? "conflating" : "every step", {}, conflate);
  history.begin();
  let heard = performance.now();
  const open = openWatch<MessageJson>(base, { conflate, bookmarkInterval: "1s" }, (message) => {
    heard = performance.now();
    history.take(message);
  });
  return { history, open, silentMs: () => performance.now() - heard };
}

test("a stalled reader delays no other one: it gets the newest states when it conflates, and a revision to resume from otherwise", async () => {
  await using service = await startService({ watchLimits: { queueLimit: 300, pageSize: 100, ringCapacity: 500 } });
  const base = `http://${service.addresses.http}`;
  const user = (agentId: string) => ({ username: agentId, agentId, clawIdentifier: "claw" });
  await Promise.all(AGENTS.map((agentId) => call(base, "UserService/CreateUser", user(agentId), LONG_MS)));
  const [quick, merging, every] = [watch(base, false), watch(base, true), watch(base, false)];
  const all = [quick, merging, every];
  for (const { history } of all) await until("the snapshot is whole", () => history.revision !== undefined, LONG_MS);
  merging.open.stall();
  every.open.stall();
  for (let round = 0; round < ROUNDS; round += 1) {
    const status = round % 2 === 0 ? "AGENT_STATUS_BUSY" : "AGENT_STATUS_IDLE";
    const before = quick.history.counts.changes;
    const beats = AGENTS.map((agentId) => ({ agentId, status }));
    await call(base, "AgentService/SendHeartbeat", { beats }, LONG_MS);
    // While the others are stalled: if it had to wait for them, it would wait for ever.
    await until("the quick one has heard", () => quick.history.counts.changes === before + AGENTS.length, LONG_MS);
  }
  const newest = quick.history.revision ?? 0n;
  merging.open.goOn();
  every.open.goOn();
  await until("the one that conflates is abreast", () => merging.history.revision === newest, LONG_MS);
  // Twenty states of each agent, of which those under way arrived unmerged.
  expect(merging.history.counts.merged).toBeGreaterThan(AGENTS.length * ROUNDS * 0.2);
  let error: Error | undefined;
  void every.open.ended.then((why) => {
    error = why ?? new Error("it ended without an error");
  });
  await until("the other one is told why it ends", () => error !== undefined, LONG_MS).catch((cause: unknown) => {
    throw new Error(`${every.open.describe()}; ${JSON.stringify(every.history.counts)}`, { cause });
  });
  expect(error).toMatchObject({ text: expect.stringContaining("WATCHER_TOO_SLOW") });
  // It stopped where it reports: from there it misses nothing.
  every.history.begin();
  const { revision } = every.history;
  const again = openWatch<MessageJson>(base, { afterRevision: `${revision}`, bookmarkInterval: "1s" }, (message) =>
    every.history.take(message),
  );
  await until("it is abreast, too", () => every.history.revision === newest, LONG_MS);
  for (const open of [again, quick.open, merging.open]) open.cut();
  const log = await readLog(service.databaseUrl);
  expect(all.flatMap(({ history }) => history.judge(log))).toEqual([]);
}, 120_000);
