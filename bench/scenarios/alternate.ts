import { setTimeout as sleep } from "node:timers/promises";
import type { BenchRun } from "../harness/scenario.ts";
import type { HeartbeatFigures } from "../load/heartbeats.ts";

/**
 * The warm-up before the first round: tens of thousands of messages of each subject, so that V8 has optimised the code.
 */
const WARM_UP_MS = 3_000;
/** The warm-up before each round. */
const RUN_IN_MS = 400;
/** The pause after each round, until running work is done. */
const RUN_OUT_MS = 200;

/** A measured server and its load. */
export interface Subject {
  readonly name: string;
  /** Processor time so far, in milliseconds: of the server, and of its storage. */
  cpu(): Promise<{ server: number; storage: number }>;
  /** Starts the load, counts for a number of milliseconds, and stops it. */
  begin(): Promise<void>;
  count(ms: number): Promise<HeartbeatFigures>;
  end(): Promise<void>;
}

export interface Round {
  readonly perSecond: number;
  /** Microseconds of processor time for each message. */
  readonly serverUs: number;
  readonly storageUs: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** The share of the load generator's core. */
  readonly loadShare: number;
  /** Bytes of each message. */
  readonly answers: number;
  readonly sentBytes: number;
  readonly receivedBytes: number;
}

/** Measures each subject once in each round, so that a disturbance of the machine affects all. */
export async function alternate(subjects: readonly Subject[], bench: BenchRun): Promise<Map<string, Round[]>> {
  const rounds = new Map<string, Round[]>(subjects.map(({ name }) => [name, []]));
  for (const subject of subjects) await oneRound(subject, WARM_UP_MS);
  for (let round = 0; round < bench.rounds; round += 1) {
    // Vary the order.
    const order = round % 2 === 0 ? subjects : subjects.toReversed();
    for (const subject of order) rounds.get(subject.name)?.push(await oneRound(subject, bench.roundMs));
  }
  return rounds;
}

async function oneRound(subject: Subject, ms: number): Promise<Round> {
  await subject.begin();
  await sleep(RUN_IN_MS);
  const before = await subject.cpu();
  const figures = await subject.count(ms);
  const after = await subject.cpu();
  await subject.end();
  await sleep(RUN_OUT_MS);
  const { messages } = figures;
  return {
    perSecond: (messages / figures.ms) * 1_000,
    serverUs: ((after.server - before.server) * 1_000) / messages,
    storageUs: ((after.storage - before.storage) * 1_000) / messages,
    p50Ms: figures.p50Ms,
    p99Ms: figures.p99Ms,
    loadShare: figures.loadCpuMs / figures.ms,
    answers: figures.answers / messages,
    sentBytes: figures.sentBytes / messages,
    receivedBytes: figures.receivedBytes / messages,
  };
}
