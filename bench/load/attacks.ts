// Hostile callers: each attack makes the service store or compute much for little input. Only on loopback, for a given
// time.
import http2 from "node:http2";
import { setPriority } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { gzipSync } from "node:zlib";
import { create, toBinary } from "@bufbuild/protobuf";
import {
  BatchGetAgentsRequestSchema,
  GetAgentRequestSchema,
  HeartbeatRequestSchema,
  ListAgentsRequestSchema,
  WatchAgentsRequestSchema,
} from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { doJobs } from "../harness/jobs.ts";

const SERVICE = "/harborforge.agents.v1.AgentService/";
const REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
const MOST_BYTES = 1_048_576;
/** The most concurrent calls of a client on one connection: as many as a listener allows streams. */
const UNDERWAY = 4_000;
const TICK_MS = 10;

export interface AttackJob {
  /** `host:port` of the two listeners. */
  readonly grpc: string;
  readonly http: string;
  readonly attack: string;
  readonly ms: number;
  /** The prefix of existing agents: `${prefix}1`, `${prefix}2` … */
  readonly prefix: string;
  readonly agents: number;
}

export interface AttackFigures {
  /** Sent messages or calls. */
  readonly sent: number;
  readonly sentBytes: number;
  /** Calls with a status other than OK, and the number of those with RESOURCE_EXHAUSTED. */
  readonly refused: number;
  readonly exhausted: number;
  /** Examples of other failures than RESOURCE_EXHAUSTED. */
  readonly otherRefusal?: string;
  readonly ms: number;
}

interface Tally {
  sent: number;
  sentBytes: number;
  refused: number;
  exhausted: number;
  otherRefusal?: string;
}

type Attack = (job: AttackJob, tally: Tally, until: number) => Promise<void>;

const framed = (message: Uint8Array, flags = 0): Buffer => {
  const frame = Buffer.alloc(5 + message.length);
  frame[0] = flags;
  frame.writeUInt32BE(message.length, 1);
  frame.set(message, 5);
  return frame;
};
const zipped = (message: Uint8Array): Buffer => framed(gzipSync(message, { level: 9 }), 1);
const hasKey = (agentId: string): Uint8Array =>
  toBinary(GetAgentRequestSchema, create(GetAgentRequestSchema, { key: { case: "agentId", value: agentId } }));
const GRPC = { "content-type": "application/grpc", te: "trailers" };
const GZIPPED = { ...GRPC, "grpc-encoding": "gzip" };
const LONG_NAME = hasKey("a".repeat(MOST_BYTES - 64));

/** A thousand beats in a message of the maximum size, for missing agents and for names that are too long. */
const HUGE_BEATS = toBinary(
  HeartbeatRequestSchema,
  create(HeartbeatRequestSchema, {
    sequence: 1n,
    beats: Array.from({ length: 1_000 }, () => ({ agentId: "b".repeat(1_000) })),
  }),
);
const JSON_BOMB = gzipSync(JSON.stringify({ agentId: "a".repeat(MOST_BYTES - 64) }), { level: 9 });
const NESTED_JSON = Buffer.from(`${'{"filter":'.repeat(30_000)}{}${"}".repeat(30_000)}`);

interface Shape {
  readonly connections: number;
  readonly perSecond: number;
  readonly windowBytes?: number;
}

function connect(address: string, windowBytes = 8 * MOST_BYTES): http2.ClientHttp2Session {
  const session = http2.connect(`http://${address}`, {
    settings: { initialWindowSize: windowBytes },
    maxSessionMemory: 4_000,
  });
  session.on("error", () => undefined);
  session.on("connect", () => session.setLocalWindowSize(Math.max(windowBytes, 65_535)));
  session.setMaxListeners(0);
  return session;
}

/** Calls at a fixed rate over several connections. A closed connection is opened again. */
function calls(
  { connections, perSecond, windowBytes }: Shape,
  address: (job: AttackJob) => string,
  headers: Readonly<Record<string, string>>,
  body: (turn: number, job: AttackJob) => Uint8Array | undefined,
): Attack {
  return async (job, tally, until) => {
    const sessions: { session: http2.ClientHttp2Session; underway: number }[] = [];
    const begin = performance.now();
    let turn = 0;
    while (performance.now() < until) {
      const due = Math.floor(((performance.now() - begin) * perSecond) / 1_000);
      for (; turn < due; turn += 1) {
        const at = turn % connections;
        let place = sessions[at];
        if (place === undefined || place.session.closed || place.session.destroyed) {
          place = { session: connect(address(job), windowBytes), underway: 0 };
          sessions[at] = place;
        }
        if (place.underway >= UNDERWAY) continue;
        call(place, headers, body(turn, job), tally);
      }
      await sleep(TICK_MS);
    }
    for (const { session } of sessions) session.destroy();
  };
}

function call(
  place: { session: http2.ClientHttp2Session; underway: number },
  headers: Readonly<Record<string, string>>,
  body: Uint8Array | undefined,
  tally: Tally,
): void {
  const stream = place.session.request({ ":method": "POST", ...headers }, { endStream: body === undefined });
  place.underway += 1;
  tally.sent += 1;
  tally.sentBytes += body?.length ?? 0;
  stream.on("error", () => undefined);
  stream.once("close", () => {
    place.underway -= 1;
  });
  count(stream, tally);
  stream.resume();
  if (body !== undefined) stream.end(body);
}

function count(stream: http2.ClientHttp2Stream, tally: Tally): void {
  for (const part of ["response", "trailers"]) {
    stream.on(part, (headers: http2.IncomingHttpHeaders) => {
      const status = headers["grpc-status"];
      const http = Number(headers[":status"] ?? 200);
      if ((status === undefined || status === "0") && http === 200) return;
      tally.refused += 1;
      const why = `${status ?? http}: ${String(headers["grpc-message"] ?? "").slice(0, 60)}`;
      if (status !== "8" && http !== 429) tally.otherRefusal ??= why;
      if (status === "8" || http === 429) tally.exhausted += 1;
    });
  }
}

/**
 * Messages at a fixed rate on streams. An ended stream is opened again.
 *
 * @param read whether responses are read
 */
function messages(
  { connections, perSecond, windowBytes }: Shape,
  streams: number,
  path: string,
  headers: Readonly<Record<string, string>>,
  body: (sequence: number) => Uint8Array,
  read: boolean,
): Attack {
  return async (job, tally, until) => {
    const sessions = Array.from({ length: connections }, () => connect(job.grpc, windowBytes));
    const open: { stream: http2.ClientHttp2Stream; sequence: number }[] = [];
    const begin = performance.now();
    let turn = 0;
    while (performance.now() < until) {
      const due = Math.floor(((performance.now() - begin) * perSecond) / 1_000);
      for (; turn < due; turn += 1) {
        const at = turn % streams;
        let place = open[at];
        if (place === undefined || place.stream.closed || place.stream.destroyed) {
          const home = at % connections;
          let session = sessions[home];
          if (session === undefined || session.closed || session.destroyed) {
            session = connect(job.grpc, windowBytes);
            sessions[home] = session;
          }
          place = { stream: session.request({ ":method": "POST", ":path": path, ...headers }), sequence: 0 };
          place.stream.on("error", () => undefined);
          count(place.stream, tally);
          if (read) place.stream.resume();
          open[at] = place;
        }
        if (place.stream.writableLength > MOST_BYTES) continue;
        place.sequence += 1;
        const bytes = body(place.sequence);
        tally.sent += 1;
        tally.sentBytes += bytes.length;
        place.stream.write(bytes);
      }
      await sleep(TICK_MS);
    }
    for (const session of sessions) session.destroy();
  };
}

/** Opens many streams as fast as the service accepts them, and reads none of them. */
function unread(
  streams: number,
  perConnection: number,
  path: string,
  body: (turn: number, job: AttackJob) => Uint8Array,
  headers: Readonly<Record<string, string>> = {},
): Attack {
  return async (job, tally, until) => {
    const sessions: http2.ClientHttp2Session[] = [];
    for (let turn = 0; turn < streams && performance.now() < until; turn += 1) {
      if (turn % perConnection === 0) sessions.push(connect(job.grpc, 0));
      const stream = sessions.at(-1)?.request({ ":method": "POST", ":path": path, ...GRPC, ...headers });
      if (stream === undefined) break;
      stream.on("error", () => undefined);
      count(stream, tally);
      const bytes = body(turn, job);
      stream.end(framed(bytes));
      tally.sent += 1;
      tally.sentBytes += bytes.length;
      if (turn % 50 === 49) await sleep(TICK_MS);
    }
    while (performance.now() < until) await sleep(TICK_MS);
    for (const session of sessions) session.destroy();
  };
}

const flood: Shape = { connections: 6, perSecond: 3_300 };
const toGrpc = (job: AttackJob): string => job.grpc;
const toConnect = (job: AttackJob): string => job.http;
const GET_AGENT = `${SERVICE}GetAgent`;
const zippedName = zipped(LONG_NAME);
const zippedBeats = zipped(HUGE_BEATS);

const filterOf = (turn: number, values: number): Uint8Array =>
  toBinary(
    WatchAgentsRequestSchema,
    create(WatchAgentsRequestSchema, {
      filter: { agentIds: Array.from({ length: values }, (_, n) => `agent-that-is-watched-by-name-${turn}-${n}`) },
    }),
  );
const everything = toBinary(WatchAgentsRequestSchema, create(WatchAgentsRequestSchema, {}));
const pageOf = (size: number): Uint8Array =>
  framed(toBinary(ListAgentsRequestSchema, create(ListAgentsRequestSchema, { pageSize: size })));
const batchOf = ({ prefix, agents }: AttackJob): Uint8Array =>
  framed(
    toBinary(
      BatchGetAgentsRequestSchema,
      create(BatchGetAgentsRequestSchema, {
        agentIds: Array.from({ length: Math.min(1_000, agents) }, (_, n) => `${prefix}${n + 1}`),
      }),
    ),
  );
/** A reflection request for the file of the service: field 4, `file_containing_symbol`. */
const symbol = Buffer.from("harborforge.agents.v1.AgentService");
const describeService = Buffer.concat([Buffer.from([0x22, symbol.length]), symbol]);
const pages = pageOf(1_000);
let batch: Uint8Array | undefined;

export const ATTACKS: Readonly<Record<string, Attack>> = {
  "gzip, calls, gRPC": calls(flood, toGrpc, { ":path": GET_AGENT, ...GZIPPED }, () => zippedName),
  "gzip, calls, Connect listener": calls(flood, toConnect, { ":path": GET_AGENT, ...GZIPPED }, () => zippedName),
  "gzip, JSON calls": calls(
    flood,
    toConnect,
    { ":path": GET_AGENT, "content-type": "application/json", "content-encoding": "gzip" },
    () => JSON_BOMB,
  ),
  "gzip, heartbeat streams that are read": messages(
    flood,
    60,
    `${SERVICE}Heartbeat`,
    GZIPPED,
    (sequence) => (sequence === 1 ? zippedBeats : beatsOf(sequence)),
    true,
  ),
  "gzip, heartbeat streams that are not read": messages(
    { ...flood, windowBytes: 0 },
    60,
    `${SERVICE}Heartbeat`,
    GZIPPED,
    (sequence) => (sequence === 1 ? zippedBeats : beatsOf(sequence)),
    false,
  ),
  "1 MiB as it is, calls, gRPC": calls(
    { connections: 6, perSecond: 200 },
    toGrpc,
    { ":path": GET_AGENT, ...GRPC },
    () => framed(LONG_NAME),
  ),
  "headers of 15 KiB, idle heartbeat streams": idleWithHeaders(20_000, 4_000),
  "nested JSON": calls(
    { connections: 6, perSecond: 300 },
    toConnect,
    { ":path": `${SERVICE}ListAgents`, "content-type": "application/json" },
    () => NESTED_JSON,
  ),
  "pages of 1,000 agents, gRPC": calls(
    { connections: 6, perSecond: 300 },
    toGrpc,
    { ":path": `${SERVICE}ListAgents`, ...GRPC },
    () => pages,
  ),
  "pages of 1,000 agents, not read": calls(
    { connections: 6, perSecond: 300, windowBytes: 0 },
    toGrpc,
    { ":path": `${SERVICE}ListAgents`, ...GRPC },
    () => pages,
  ),
  "pages of 1,000 agents, not read, Connect listener": calls(
    { connections: 6, perSecond: 300, windowBytes: 0 },
    toConnect,
    { ":path": `${SERVICE}ListAgents`, ...GRPC },
    () => pages,
  ),
  "batches of 1,000 agents": calls(
    { connections: 6, perSecond: 300 },
    toGrpc,
    { ":path": `${SERVICE}BatchGetAgents`, ...GRPC },
    (_, job) => {
      batch ??= batchOf(job);
      return batch;
    },
  ),
  "watches that are not read": unread(32_000, 4_000, `${SERVICE}WatchAgents`, () => everything),
  "watches with filters of 1,000 values": unread(32_000, 4_000, `${SERVICE}WatchAgents`, (turn) =>
    filterOf(turn, 1_000),
  ),
  "reflection, not read": messages(
    { connections: 6, perSecond: 3_300, windowBytes: 0 },
    600,
    REFLECTION,
    GRPC,
    () => framed(describeService),
    false,
  ),
  "GET with a query of 15 KB": gets(1_000),
  "connections that say nothing": idleConnections(5_000),
};

/** The same beats with another sequence, compressed again, which an attacker has to compute only once. */
const beatsBySequence = new Map<number, Uint8Array>();
function beatsOf(sequence: number): Uint8Array {
  let bytes = beatsBySequence.get(sequence);
  if (bytes === undefined) {
    const head = toBinary(HeartbeatRequestSchema, create(HeartbeatRequestSchema, { sequence: BigInt(sequence) }));
    bytes = zipped(Buffer.concat([HUGE_BEATS, head]));
    beatsBySequence.set(sequence, bytes);
  }
  return bytes;
}

function idleWithHeaders(streams: number, perConnection: number): Attack {
  const long: Record<string, string> = {};
  // Entries of the HPACK table: sent once, then one byte each.
  for (let n = 0; n < 15; n += 1) long[`x-${n}`] = `${n}`.repeat(200).padEnd(1_000, "x").slice(0, 1_000);
  return async (job, tally, until) => {
    const sessions: http2.ClientHttp2Session[] = [];
    for (let turn = 0; turn < streams && performance.now() < until; turn += 1) {
      if (turn % perConnection === 0) sessions.push(connect(job.grpc, 0));
      const stream = sessions.at(-1)?.request({ ":method": "POST", ":path": `${SERVICE}Heartbeat`, ...GRPC, ...long });
      if (stream === undefined) break;
      stream.on("error", () => undefined);
      count(stream, tally);
      tally.sent += 1;
      if (turn % 50 === 49) await sleep(TICK_MS);
    }
    while (performance.now() < until) await sleep(TICK_MS);
    for (const session of sessions) session.destroy();
  };
}

function gets(perSecond: number): Attack {
  const query = `?encoding=json&message=${encodeURIComponent(JSON.stringify({ agentId: "g".repeat(15_000) }))}`;
  return async (job, tally, until) =>
    await calls(
      { connections: 6, perSecond },
      toConnect,
      { ":method": "GET", ":path": GET_AGENT + query },
      () => undefined,
    )(job, tally, until);
}

function idleConnections(count: number): Attack {
  return async (job, tally, until) => {
    const sessions: http2.ClientHttp2Session[] = [];
    while (performance.now() < until) {
      if (sessions.length < count) {
        sessions.push(...Array.from({ length: 4 }, () => connect(job.grpc)));
        tally.sent += 4;
      }
      await sleep(TICK_MS);
    }
    for (const session of sessions) session.destroy();
  };
}

if (process.send !== undefined) {
  // The disturbed client shares a processor with this program.
  setPriority(10);
  doJobs({
    attack: async (job: AttackJob): Promise<AttackFigures> => {
      const tally: Tally = { sent: 0, sentBytes: 0, refused: 0, exhausted: 0 };
      const begin = performance.now();
      const attack = ATTACKS[job.attack];
      if (attack === undefined) throw new Error(`there is no attack ${job.attack}`);
      await attack(job, tally, begin + job.ms);
      return { ...tally, ms: performance.now() - begin };
    },
  });
}
