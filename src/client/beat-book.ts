import type { MessageInitShape } from "@bufbuild/protobuf";
import type { AgentStatus as AgentStatusMessage, ExhaustionSchema } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import type { AgentStatus, ExhaustionNews, WorkingStatus } from "../domain/agent.ts";
import type { BeatView } from "./views.ts";
import { durationOf, REASON_VALUES, STATUS_VALUES, timestampOf } from "./wire-words.ts";

/** What an agent says of itself. */
export type Report = WorkingStatus | { readonly exhausted: ExhaustionNews };

/** A beat as it goes into a message. */
export interface OutgoingBeat {
  readonly agentId: string;
  readonly status?: AgentStatusMessage;
  readonly exhaustion?: MessageInitShape<typeof ExhaustionSchema>;
  readonly leaving?: boolean;
  readonly knownRevision?: bigint;
}

/** A word that is not acknowledged yet. */
interface Pending {
  readonly word: Report | "leaving";
  /** What the agent knew when it spoke: news that came since may not make an older word look informed. */
  readonly knownRevision: bigint;
  /** The message that carries it; 0 while none does. */
  sentIn: bigint;
}

interface Entry {
  readonly agentId: string;
  knownRevision: bigint;
  /** What the agent is, as far as both sides agree: said again on a new stream, since the lease may have ended. */
  standing: WorkingStatus | undefined;
  pending: Pending | undefined;
  /** Whether its lease is to be renewed by the next message. */
  due: boolean;
}

/**
 * What the agents of one heartbeat stream have to say, and what the server is known to know of it. A word is sent until
 * it is acknowledged; after that beats carry none, since an exhaustion said again after its recovery would be a new one.
 */
export class BeatBook {
  readonly #entries = new Map<string, Entry>();

  get size(): number {
    return this.#entries.size;
  }

  /** Whether there is something to send. */
  get hasWork(): boolean {
    for (const entry of this.#entries.values()) if (wantsOut(entry)) return true;
    return false;
  }

  /** An agent that says nothing yet: its first beat tells the server only that it is there. */
  add(agentId: string): void {
    if (this.#entries.has(agentId)) return;
    this.#entries.set(agentId, { agentId, knownRevision: 0n, standing: undefined, pending: undefined, due: true });
  }

  /** The newest word of an agent counts; of an agent that was not added, or is no longer the stream's, none does. */
  say(agentId: string, word: Report | "leaving"): void {
    const entry = this.#entries.get(agentId);
    if (entry === undefined || entry.pending?.word === "leaving") return;
    entry.pending = { word, knownRevision: entry.knownRevision, sentIn: 0n };
  }

  sayGoodbye(): void {
    for (const agentId of this.#entries.keys()) this.say(agentId, "leaving");
  }

  renewAll(): void {
    for (const entry of this.#entries.values()) entry.due = true;
  }

  /** A new stream: what was not acknowledged on the old one is sent again. */
  restart(): void {
    for (const entry of this.#entries.values()) {
      entry.due = true;
      const { standing, knownRevision } = entry;
      if (entry.pending !== undefined) entry.pending.sentIn = 0n;
      else if (standing !== undefined) entry.pending = { word: standing, knownRevision, sentIn: 0n };
    }
  }

  /** The beats of the message with this sequence: at most so many, the rest wants the next one. */
  take(sequence: bigint, most: number): OutgoingBeat[] {
    const beats: OutgoingBeat[] = [];
    for (const entry of this.#entries.values()) {
      if (!wantsOut(entry)) continue;
      if (beats.length >= most) break;
      const { pending } = entry;
      entry.due = false;
      if (pending === undefined || pending.sentIn !== 0n) {
        beats.push({ agentId: entry.agentId, ...known(entry.knownRevision) });
      } else {
        pending.sentIn = sequence;
        beats.push({ agentId: entry.agentId, ...known(pending.knownRevision), ...spoken(pending.word) });
      }
    }
    return beats;
  }

  /** All messages up to this one are applied or refused. Comes after the results that came with it. */
  acknowledge(sequence: bigint): void {
    for (const entry of this.#entries.values()) {
      const { pending } = entry;
      if (pending === undefined || pending.sentIn === 0n || pending.sentIn > sequence) continue;
      entry.pending = undefined;
      if (pending.word === "leaving") this.#entries.delete(entry.agentId);
      else entry.standing = typeof pending.word === "string" ? pending.word : undefined;
    }
  }

  /**
   * Takes in a result.
   *
   * @returns whether it is news: false for what was overtaken by newer news or by what the agent said since, and for
   *   agents that are not the stream's.
   */
  learn({ agentId, sequence, status, revision, refusal }: BeatView): boolean {
    const entry = this.#entries.get(agentId);
    if (entry === undefined || (refusal === undefined && revision < entry.knownRevision)) return false;
    if (refusal !== undefined && refusal.reason !== "REPORT_OUTDATED" && refusal.retryAfterMs === undefined) {
      // Nothing more that is said for this agent here has any effect.
      this.#entries.delete(agentId);
      return true;
    }
    if (revision > entry.knownRevision) entry.knownRevision = revision;
    if (sequence !== 0n && entry.pending?.sentIn === sequence && entry.pending.word !== "leaving") {
      entry.pending = undefined;
    }
    if (entry.pending === undefined && status !== undefined) entry.standing = working(status);
    return entry.pending === undefined || sequence === 0n || refusal !== undefined;
  }
}

function wantsOut({ due, pending }: Entry): boolean {
  return due || pending?.sentIn === 0n;
}

function working(status: AgentStatus | "unknown"): WorkingStatus | undefined {
  return status === "idle" || status === "on_call" || status === "busy" ? status : undefined;
}

function known(knownRevision: bigint): Pick<OutgoingBeat, "knownRevision"> {
  return knownRevision === 0n ? {} : { knownRevision };
}

function spoken(word: Report | "leaving"): Omit<OutgoingBeat, "agentId"> {
  if (word === "leaving") return { leaving: true };
  if (typeof word === "string") return { status: STATUS_VALUES[word] };
  const { reason, recoveryAt, retryAfterMs } = word.exhausted;
  const exhaustion: MessageInitShape<typeof ExhaustionSchema> = { reason: REASON_VALUES[reason] };
  if (retryAfterMs !== undefined) exhaustion.recovery = { case: "retryAfter", value: durationOf(retryAfterMs) };
  else if (recoveryAt !== undefined) exhaustion.recovery = { case: "recoveryAt", value: timestampOf(recoveryAt) };
  return { status: STATUS_VALUES.exhausted, exhaustion };
}
