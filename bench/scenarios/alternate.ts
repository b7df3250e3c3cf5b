import { setTimeout as sleep } from "node:timers/promises";
import type { Asked } from "../harness/scenario.ts";
import type { HeartbeatFigures } from "../load/heartbeats.ts";

/** Before the first round, so that what is compiled for speed is compiled: tens of thousands of messages of each. */
const WARM_UP_MS = 3_000;
/** Before each round counts. */
const RUN_IN_MS = 400;
/** After it, until what was begun is done. */
const RUN_OUT_MS = 200;

/** Something that answers messages, and what it costs. */
export interface Subject {
  readonly name: string;
  /** Processor time used so far, in milliseconds: of the server, and of what it stores in. */
  cpu(): Promise<{ server: number; storage: number }>;
  /** Lets its load begin, count for so many milliseconds, and end. */
  begin(): Promise<void>;
  count(ms: number): Promise<HeartbeatFigures>;
  end(): Promise<void>;
}

export interface Round {
  readonly perSecond: number;
  /** Microseconds of processor time a message. */
  readonly serverUs: number;
  readonly storageUs: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** Of the core that the load generator has. */
  readonly loadShare: number;
  /** A message. */
  readonly answers: number;
  readonly sentBytes: number;
  readonly receivedBytes: number;
}

/** Round by round each subject once, so that what disturbs the machine disturbs all. */
export async function alternate(subjects: readonly Subject[], asked: Asked): Promise<Map<string, Round[]>> {
  const rounds = new Map<string, Round[]>(subjects.map(({ name }) => [name, []]));
  for (const subject of subjects) await oneRound(subject, WARM_UP_MS);
  for (let round = 0; round < asked.rounds; round += 1) {
    // Not always the same one after the other.
    const order = round % 2 === 0 ? subjects : subjects.toReversed();
    for (const subject of order) rounds.get(subject.name)?.push(await oneRound(subject, asked.roundMs));
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
