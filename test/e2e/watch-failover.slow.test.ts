import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { type PostgresPair, startPostgresPair, whyNoStandby } from "../support/postgres-pair.ts";
import { until } from "../support/until.ts";
import { History, type MessageJson } from "../watch-check/history.ts";
import { readLog } from "../watch-check/log.ts";
import { Random } from "../watch-check/random.ts";
import { Replica } from "../watch-check/stage.ts";
import { keepWatching } from "../watch-check/watching.ts";
import { call, openWatch } from "../watch-check/wire.ts";
import { write } from "../watch-check/writers.ts";

const why = whyNoStandby();
if (why !== undefined) process.stderr.write(`no failover is tested: ${why}\n`);

const LONG_MS = 240_000;
const AGENTS = Array.from({ length: 20 }, (_, n) => `beating-${n}`);

/** Two replicas on both hosts, and clients that watch and change agents through them. */
async function startScene(options: { readonly synchronous: boolean }) {
  await using stack = new AsyncDisposableStack();
  const pair: PostgresPair = stack.use(await startPostgresPair(options));
  const replicas = [new Replica(pair.url, {}), new Replica(pair.url, {})];
  stack.defer(async () => void (await Promise.all(replicas.map((replica) => replica.stop("SIGKILL")))));
  await Promise.all(replicas.map((replica) => replica.start()));
  const bases = () => replicas.flatMap(({ base }) => base ?? []);
  const over = new AbortController();
  stack.defer(() => over.abort());
  const everything = stack.move();
  return {
    pair,
    bases,
    /** Well-behaved readers, with several filters. */
    watch(): { readonly histories: readonly History[]; stop(): Promise<void> } {
      const end = new AbortController();
      const histories = [
        new History("everything", {}, false),
        new History("everything (conflating)", {}, true),
        new History("a claw", { clawIdentifiers: ["claw-a"] }, false),
        new History("busy", { statuses: ["busy"] }, false),
      ];
      const watching = histories.map((history, n) =>
        keepWatching({ random: new Random(n), history, calm: AbortSignal.abort(), signal: end.signal, bases }),
      );
      return {
        histories,
        async stop() {
          end.abort();
          await Promise.all(watching);
        },
      };
    },
    /** Writes at random until it is stopped. */
    write(): () => Promise<void> {
      const end = new AbortController();
      const writing = [1, 2].map((seed) =>
        write({ random: new Random(seed), signal: end.signal, bases, onUser: () => undefined }),
      );
      return async () => {
        end.abort();
        await Promise.all(writing);
      };
    },
    [Symbol.asyncDispose]: () => everything.disposeAsync(),
  };
}

async function newestOf(url: string): Promise<bigint> {
  return (await readLog(url)).at(-1)?.revision ?? 0n;
}

async function untilAtTheEnd(url: string, histories: readonly History[]): Promise<void> {
  const newest = await newestOf(url);
  await until(
    "all watchers have come to the end",
    () => histories.every(({ revision = 0n }) => revision >= newest),
    60_000,
  );
}

/** Repeats a call until it succeeds, on any replica. */
async function answered<Answer>(bases: () => readonly string[], method: string, request: object): Promise<Answer> {
  for (let n = 0; ; n += 1) {
    try {
      return await call<Answer>(bases()[n % 2] ?? "", method, request);
    } catch (error) {
      if (n > 200) throw error;
      await sleep(50);
    }
  }
}

test.skipIf(why !== undefined)(
  "a failover to a synchronous standby loses no acknowledged change: watches continue, and no agent is falsely offline",
  async () => {
    await using scene = await startScene({ synchronous: true });
    const { pair, bases } = scene;
    const { histories, stop } = scene.watch();
    const beating = new AbortController();
    const there: string[] = [];
    // Each of them sends heartbeats as often as requested, from its creation on: on a busy machine a first
    // lease may end before the last agent is created.
    const beats = (async () => {
      while (!beating.signal.aborted) {
        const base = bases()[0] ?? "";
        const request = { beats: there.map((agentId) => ({ agentId })), leaseTtl: "6s" };
        if (there.length > 0) await call(base, "AgentService/SendHeartbeat", request).catch(() => undefined);
        await sleep(there.length < AGENTS.length ? 50 : 500);
      }
    })();
    for (const agentId of AGENTS) {
      await answered(bases, "UserService/CreateUser", { username: agentId, agentId, clawIdentifier: "claw-b" });
      there.push(agentId);
    }
    const stopWriting = scene.write();
    const acknowledged: bigint[] = [];
    const witness = (async () => {
      for (let n = 0; !beating.signal.aborted; n += 1) {
        const status = n % 2 === 0 ? "AGENT_STATUS_BUSY" : "AGENT_STATUS_IDLE";
        const request = { agentId: "beating-0", status, hold: "0s" };
        const { agent } = await answered<{ agent: { revision: string } }>(
          bases,
          "AgentService/UpdateAgentStatus",
          request,
        );
        acknowledged.push(BigInt(agent.revision));
        await sleep(5);
      }
    })();
    await until("there is something to lose", () => acknowledged.length > 100, 60_000);
    await pair.crash();
    const before = acknowledged.length;
    await pair.promote();
    await until("changes are acknowledged again", () => acknowledged.length > before + 100, 60_000);
    beating.abort();
    await Promise.all([witness, beats, stopWriting()]);

    await untilAtTheEnd(pair.standbyUrl, histories);
    await stop();
    // Now, because leases of agents without heartbeats end all the while.
    const log = await readLog(pair.standbyUrl);
    const kept = new Set(log.map(({ revision }) => revision));
    expect(acknowledged.filter((revision) => !kept.has(revision))).toEqual([]);
    expect(histories.flatMap((history) => history.judge(log))).toEqual([]);
    // No watch had to restart.
    expect(histories.map(({ counts }) => counts.snapshots)).toEqual(histories.map(() => 1));
    const offline = log.filter(({ agentId, after }) => AGENTS.includes(agentId) && after?.status === "offline");
    expect(offline).toEqual([]);
  },
  LONG_MS,
);

test.skipIf(why !== undefined)(
  "a standby without the newest changes makes watchers that saw them restart with a correct snapshot",
  async () => {
    await using scene = await startScene({ synchronous: false });
    const { pair, bases } = scene;
    const before = scene.watch();
    const stopWriting = scene.write();
    const some = async (more: number) => {
      const from = (await readLog(pair.primaryUrl)).length;
      await until("there are transitions", async () => (await readLog(pair.primaryUrl)).length > from + more, 60_000);
    };
    await some(100);
    await pair.cutOff();
    await some(100);
    await stopWriting();
    const lost = await newestOf(pair.primaryUrl);
    await until(
      "all watchers are in the tail",
      () => before.histories.every(({ revision = 0n }) => revision >= lost),
      60_000,
    );
    await before.stop();
    const oldLog = await readLog(pair.primaryUrl);
    expect(before.histories.flatMap((history) => history.judge(oldLog))).toEqual([]);
    const open = openWatch(bases()[0] ?? "", { afterRevision: `${lost}` }, () => undefined);
    await pair.crash();
    await pair.promote();
    const kept = await newestOf(pair.standbyUrl);
    expect(kept).toBeLessThan(lost);

    // Before the new history has a first transition, and after it.
    const resume = async (base: string, afterRevision: bigint) => {
      let goesOn = false;
      const watch = openWatch<MessageJson>(
        base,
        { afterRevision: `${afterRevision}`, bookmarkInterval: "1s" },
        ({ revision = "0" }) => {
          // A bookmark may come at the old position, before the database has rejected that position.
          goesOn ||= BigInt(revision) > afterRevision;
          if (goesOn) watch.cut();
        },
      );
      const error = await watch.ended;
      return goesOn ? "goes on" : String(error && "text" in error ? error.text : error);
    };
    for (const base of bases()) {
      // It continues from memory until the replica has found the database again; then it ends, like the open
      // ones.
      await until("the replica knows", async () => /COMPACTED/.test(await resume(base, lost)), 60_000);
      expect(await resume(base, kept + 1n)).toMatch(/REVISION_COMPACTED/);
      expect(await resume(base, kept)).toBe("goes on");
    }
    expect(await open.ended).toMatchObject({ text: expect.stringContaining("REVISION_COMPACTED") });
    const after = scene.watch();
    const stopAgain = scene.write();
    await until("there is news", async () => (await newestOf(pair.standbyUrl)) > lost + 50n, 60_000);
    await stopAgain();
    await untilAtTheEnd(pair.standbyUrl, after.histories);
    await after.stop();
    const log = await readLog(pair.standbyUrl);
    expect(after.histories.flatMap((history) => history.judge(log))).toEqual([]);
    // No revision was assigned twice.
    const old = new Set(oldLog.filter(({ revision }) => revision > kept).map(({ revision }) => revision));
    expect(log.filter(({ revision }) => old.has(revision))).toEqual([]);
    for (const base of bases()) expect(await resume(base, lost)).toMatch(/REVISION_COMPACTED/);
  },
  LONG_MS,
);
