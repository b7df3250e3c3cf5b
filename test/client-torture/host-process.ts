/**
 * A program that uses the client library like a gateway: heartbeats of several agents, a watch, calls. It
 * follows the messages of the torture, and ends when the torture is gone.
 *
 * node --expose-gc host-process.ts '{"addresses": […], "claw": …, "agentIds": […], "everyMs": …, "worker": …}'
 */
import http2, { type ClientHttp2Session } from "node:http2";
import { syncBuiltinESMExports } from "node:module";
import type { Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import workerThreads from "node:worker_threads";
import {
  createAgentCache,
  createHeartbeatClient,
  createServiceClients,
  type HeartbeatWorkerOptions,
  ReportError,
} from "harborforge-agents-client";
import type { News, Order, SocketFault } from "./messages.ts";

interface HostOptions {
  readonly addresses: readonly string[];
  readonly claw: string;
  readonly agentIds: readonly string[];
  /** The mean time between two reports of an agent. */
  readonly everyMs: number;
  readonly worker: boolean | HeartbeatWorkerOptions;
}

/** Further ahead than a run takes. */
const RECOVERY_AHEAD_MS = 24 * 3_600_000;
const CALL_MS = 3_000;
const BOOKMARK_MS = 30_000;

const options: HostOptions = JSON.parse(process.argv[2] ?? "{}");
const { addresses, claw, agentIds, everyMs, worker } = options;
const sessions = new Set<ClientHttp2Session>();
const workers = new Set<workerThreads.Worker>();
let stallAtPingMs = 0;
wrapSessions();
process.on("disconnect", () => process.exit(0));

const client = createHeartbeatClient({ addresses, claw, worker });
const cache = createAgentCache({ addresses, filter: { clawIdentifiers: [claw] }, bookmarkMs: BOOKMARK_MS });
const service = createServiceClients({ addresses });
const acknowledged = new Map<string, number>();
let quietUntil = 0;
let over = false;
let recoveryAt = Date.now() + RECOVERY_AHEAD_MS;
const stories = Promise.all(agentIds.map(work));
process.on("message", (order: Order) => void obey(order));
await cache.ready;
tell({ kind: "ready" });

/** Is exhausted until another moment each time, which the log of transitions keeps. */
async function work(agentId: string): Promise<void> {
  const agent = client.agent(agentId);
  while (!over) {
    recoveryAt += 1;
    const mine = recoveryAt;
    try {
      await agent.exhausted({ reason: "rate_limit", recoveryAt: new Date(mine) });
      tell({ kind: "acknowledged", agentId, recoveryAt: mine });
      acknowledged.set(agentId, (acknowledged.get(agentId) ?? 0) + 1);
      await agent.busy();
    } catch (error) {
      const reason = error instanceof ReportError ? `${error.reason}: ${error.message}` : String(error);
      if (!over) tell({ kind: "refused", agentId, reason });
    }
    await sleep(everyMs * (0.5 + Math.random()));
    while (Date.now() < quietUntil) await sleep(100);
  }
}

async function obey(order: Order): Promise<void> {
  switch (order.kind) {
    case "stall":
      if (order.at === "now") block(order.ms);
      else stallAtPingMs = order.ms;
      return;
    case "quiet":
      quietUntil = Date.now() + order.ms;
      return;
    case "break":
      if (order.how === "worker") for (const one of [...workers]) void one.terminate();
      else for (const session of [...sessions]) breakSession(session, order.how);
      return;
    case "probe":
      await probe();
      tell({ kind: "probed", id: order.id });
      return;
    case "sample": {
      globalThis.gc?.();
      const { heapUsed, external } = process.memoryUsage();
      const resources = process.getActiveResourcesInfo().length;
      tell({ kind: "sample", id: order.id, bytes: heapUsed + external, resources });
      return;
    }
    case "end":
      over = true;
      await client.close();
      await stories;
      await cache.close();
      service.close();
      tell({ kind: "ended" });
      process.disconnect();
  }
}

async function probe(): Promise<void> {
  const before = new Map(acknowledged);
  quietUntil = 0;
  const answered = async (): Promise<void> => {
    while (!over) {
      const ok = await service.agents.getFleet({}, { timeoutMs: CALL_MS }).then(
        () => true,
        () => false,
      );
      if (ok) return;
      service.reconnect();
      await sleep(100);
    }
  };
  const reported = async (agentId: string): Promise<void> => {
    while (!over && (acknowledged.get(agentId) ?? 0) < (before.get(agentId) ?? 0) + 2) await sleep(50);
  };
  const since = cache.revision ?? 0n;
  await Promise.all([answered(), ...agentIds.map(reported)]);
  // The watch receives the agents' reports since.
  await cache.waitFor(() => (cache.isCurrent && (cache.revision ?? 0n) > since) || over);
}

function breakSession(session: ClientHttp2Session, how: Exclude<SocketFault, "worker">): void {
  const symbol = Object.getOwnPropertySymbols(session).find(({ description }) => description === "socket");
  const socket: Socket | undefined = symbol === undefined ? undefined : Reflect.get(session, symbol);
  switch (how) {
    case "socket":
      socket?.destroy();
      return;
    case "socket-error":
      socket?.destroy(new Error("a socket that was destroyed"));
      return;
    case "session":
      session.destroy();
      return;
    case "session-error":
      session.destroy(new Error("a session that was destroyed"));
      return;
    case "go-away":
      if (!session.destroyed) session.goaway(2);
  }
}

function wrapSessions(): void {
  const { connect } = http2;
  const wrapped = (...args: Parameters<typeof connect>): ClientHttp2Session => {
    const session = connect(...args);
    sessions.add(session);
    session.once("close", () => sessions.delete(session));
    const ping = session.ping.bind(session);
    const pingAndStall = (...how: unknown[]): boolean => {
      const ms = stallAtPingMs;
      stallAtPingMs = 0;
      if (ms > 0) process.nextTick(() => block(ms));
      return Reflect.apply(ping, undefined, how);
    };
    Object.assign(session, { ping: pingAndStall });
    return session;
  };
  Object.assign(http2, { connect: wrapped });
  class KnownWorker extends workerThreads.Worker {
    constructor(...args: ConstructorParameters<typeof workerThreads.Worker>) {
      super(...args);
      workers.add(this);
      this.once("exit", () => workers.delete(this));
    }
  }
  Object.assign(workerThreads, { Worker: KnownWorker });
  syncBuiltinESMExports();
}

function block(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

function tell(news: News): void {
  // A torture that is gone receives nothing any more.
  if (process.connected) process.send?.(news, undefined, undefined, () => undefined);
}
