import type { MessageInitShape } from "@bufbuild/protobuf";
import type {
  AgentStatus as AgentStatusMessage,
  ExhaustionSchema,
} from "../../../../gen/harborforge/agents/v1/agent_pb.ts";
import type { SessionStart as SessionStartMessage } from "../../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { REASON_VALUES, SESSION_START_VALUES, STATUS_VALUES, type Unknown } from "../../../../src/contract/enums.ts";
import { durationOf, timestampOf } from "../../../../src/contract/timestamps.ts";
import type { AgentStatus, ExhaustionNews, SessionStart, WorkingStatus } from "../../../../src/contract/words.ts";
import type { BeatRefusal, BeatView } from "../views.ts";

/** What an agent says of itself. */
export type Report = WorkingStatus | { readonly exhausted: ExhaustionNews };

/** What a beat can say: a report, or the goodbye. */
export type BeatContent = Report | "leaving";

/** The result of a report or a goodbye. */
export type ReportResult =
  /** Acknowledged. `told` is what the server has made of the agent since, or by it; undefined where that is as said. */
  | { readonly kind: "applied"; readonly serverStatus: AgentStatus | Unknown | undefined }
  /** The agent said something newer before this was acknowledged. */
  | { readonly kind: "overtaken" }
  | { readonly kind: "refused"; readonly beat: BeatView; readonly refusal: BeatRefusal };

export type Settle = (result: ReportResult) => void;

/** A beat as it goes into a message. */
export interface OutgoingBeat {
  readonly agentId: string;
  readonly status?: AgentStatusMessage;
  readonly exhaustion?: MessageInitShape<typeof ExhaustionSchema>;
  readonly leaving?: boolean;
  readonly knownRevision?: bigint;
  readonly sessionStart?: SessionStartMessage;
}

/** Why an agent beats here: what its program decided, until the server has taken it in. Shared with whoever decides. */
export interface AgentClaim {
  /** What a new stream says of the agent. `resume`: the server has taken the program's claim in. */
  start: SessionStart;
}

/** What both sides agree on before an agent has said anything here. */
export interface AgreedState {
  readonly agreedStatus: WorkingStatus | undefined;
  readonly knownRevision: bigint;
}

const NOTHING_AGREED: AgreedState = { agreedStatus: undefined, knownRevision: 0n };

/** How much a message may carry. */
export interface MessageLimits {
  readonly beats: number;
  readonly bytes: number;
}

/** A word that is not acknowledged yet. */
interface Pending<Content> {
  readonly content: Content;
  /** What the agent knew when it spoke: news that came since may not make an older word look informed. */
  readonly knownRevision: bigint;
  readonly settle: Settle;
  /** The message that carries it; 0 while none does. */
  sentIn: bigint;
  /** What the server has made of the agent since this was said. */
  serverStatus: AgentStatus | Unknown | undefined;
}

/** An agent's page of the book: it can be torn out and put into another stream's. */
export interface QueueEntry {
  readonly agentId: string;
  /** The most that a beat of the agent takes in a message. */
  readonly bytes: number;
  knownRevision: bigint;
  /** What the agent is, as far as both sides agree: said again on a new stream, since the lease may have ended. */
  agreedStatus: WorkingStatus | undefined;
  /** The server said that it is offline, as it does where a lease ended while the machine slept. */
  isThoughtOffline: boolean;
  report: Pending<Report> | undefined;
  /** Said after the report: an exhaustion outlasts the goodbye. */
  goodbye: Pending<"leaving"> | undefined;
  /** Whether its lease is to be renewed by the next message. */
  due: boolean;
  readonly claim: AgentClaim;
  /** The message that first told the stream why the agent beats; 0 while none did. */
  startSentIn: bigint;
}

/** Status, exhaustion, revision, and the lengths of everything, each at its longest. */
const BYTES_BESIDES_ID = 64;

/**
 * What the agents of one heartbeat stream have to say, and what the server is known to know of it. A word is sent until
 * it is acknowledged; after that beats carry none, since an exhaustion said again after its recovery would be a new one.
 */
export class BeatQueue {
  readonly #entries = new Map<string, QueueEntry>();
  /** Those with something to send, in the order in which they came to have it. */
  readonly #waiting = new Set<QueueEntry>();
  /** Those with a word under way. */
  readonly #sent = new Set<QueueEntry>();
  /** Those that the server has not answered for on this stream. */
  readonly #starting = new Set<QueueEntry>();

  get size(): number {
    return this.#entries.size;
  }

  /** Whether there is something to send. */
  get hasWork(): boolean {
    return this.#waiting.size > 0;
  }

  /** Whether every word is acknowledged. */
  get isSettled(): boolean {
    if (this.#sent.size > 0) return false;
    for (const { report, goodbye } of this.#waiting) if (report !== undefined || goodbye !== undefined) return false;
    return true;
  }

  has(agentId: string): boolean {
    return this.#entries.has(agentId);
  }

  /** The newest revision of an agent that the server has told; 0 before it has told any. */
  knownRevision(agentId: string): bigint {
    return this.#entries.get(agentId)?.knownRevision ?? 0n;
  }

  /**
   * An agent that says nothing yet: its first beat tells the server only that it is there, and why, or again what both
   * sides had agreed on by another book.
   */
  add(
    agentId: string,
    claim: AgentClaim = { start: "first" },
    { agreedStatus, knownRevision }: AgreedState = NOTHING_AGREED,
  ): void {
    if (this.#entries.has(agentId)) return;
    const bytes = new TextEncoder().encode(agentId).length + BYTES_BESIDES_ID;
    this.adopt({
      agentId,
      bytes,
      knownRevision,
      agreedStatus,
      isThoughtOffline: false,
      report: undefined,
      goodbye: undefined,
      due: true,
      claim,
      startSentIn: 0n,
    });
  }

  /** Takes in an agent of another book, with all that it has to say: nothing of it is under way here. */
  adopt(entry: QueueEntry): void {
    this.#entries.set(entry.agentId, entry);
    this.#beginAnew(entry);
  }

  /** Tears out those that are too many, the newest. */
  removeSurplus(most: number): QueueEntry[] {
    const surplus = [...this.#entries.values()].slice(most);
    for (const entry of surplus) this.#remove(entry);
    return surplus;
  }

  /**
   * The newest word of an agent counts, and none after its goodbye.
   *
   * @param knownRevision what the agent knew when it spoke. Default: all that the server has told
   * @returns whether it will be said: not of an agent that was not added, or is no longer the stream's
   */
  report(
    agentId: string,
    content: BeatContent,
    settle: Settle = () => undefined,
    knownRevision = this.knownRevision(agentId),
  ): boolean {
    const entry = this.#entries.get(agentId);
    if (entry === undefined || entry.goodbye !== undefined) return false;
    if (content === "leaving") entry.goodbye = { content, knownRevision, settle, sentIn: 0n, serverStatus: undefined };
    else {
      const { report } = entry;
      entry.report = { content, knownRevision, settle, sentIn: 0n, serverStatus: undefined };
      report?.settle({ kind: "overtaken" });
    }
    this.#waiting.add(entry);
    return true;
  }

  leaveAll(): void {
    for (const agentId of this.#entries.keys()) this.report(agentId, "leaving");
  }

  renewAll(): void {
    for (const entry of this.#entries.values()) {
      // A beat that comes after the goodbye would bring the agent back.
      if (entry.goodbye !== undefined && entry.goodbye.sentIn !== 0n) continue;
      entry.due = true;
      this.#waiting.add(entry);
    }
  }

  /** A new stream: what was not acknowledged on the old one is sent again. */
  restart(): void {
    for (const entry of this.#entries.values()) this.#beginAnew(entry);
  }

  /** The beats of the message with this sequence: as many as may be, at least one, the rest wants the next one. */
  nextBeats(sequence: bigint, limits: MessageLimits): OutgoingBeat[] {
    const beats: OutgoingBeat[] = [];
    let bytes = 0;
    for (const entry of this.#waiting) {
      while (wantsOut(entry)) {
        bytes += entry.bytes;
        if (beats.length >= limits.beats || (beats.length > 0 && bytes > limits.bytes)) return beats;
        beats.push({ ...nextBeat(entry, sequence), ...this.#startOf(entry, sequence) });
      }
      this.#waiting.delete(entry);
      if (entry.report !== undefined || entry.goodbye !== undefined) this.#sent.add(entry);
    }
    return beats;
  }

  /** All messages up to this one are applied or refused. Comes after the results that came with it. */
  acknowledge(sequence: bigint): void {
    for (const entry of this.#starting) {
      if (entry.startSentIn !== 0n && entry.startSentIn <= sequence) this.#noteStarted(entry);
    }
    for (const entry of [...this.#sent]) {
      const { report, goodbye } = entry;
      if (isAnswered(report, sequence)) {
        entry.report = undefined;
        entry.agreedStatus =
          report.serverStatus === undefined ? workingStatusOf(report.content) : workingStatus(report.serverStatus);
        report.settle({ kind: "applied", serverStatus: report.serverStatus });
      }
      if (isAnswered(goodbye, sequence)) {
        this.#remove(entry);
        goodbye.settle({ kind: "applied", serverStatus: undefined });
      } else this.#noteSettled(entry);
    }
  }

  /**
   * Takes in a result.
   *
   * @returns whether it is news: false for what was overtaken by newer news or by what the agent said since, and for
   *   agents that are not the stream's.
   */
  receive(beat: BeatView): boolean {
    const { agentId, sequence, status, revision, refusal } = beat;
    const entry = this.#entries.get(agentId);
    if (entry === undefined) return false;
    if (refusal === undefined || refusal.reason === "REPORT_OUTDATED") this.#noteStarted(entry);
    // The beat was refused before the server looked why it came: the next one says so again.
    else if (sequence !== 0n && sequence === entry.startSentIn) entry.startSentIn = 0n;
    if (refusal === undefined && revision < entry.knownRevision) return false;
    const { report, goodbye } = entry;
    const ofReport = sequence !== 0n && report?.sentIn === sequence;
    if (refusal !== undefined && isFinal(refusal, ofReport)) {
      // Nothing more that is said for this agent here has any effect.
      this.#remove(entry);
      report?.settle({ kind: "refused", beat, refusal });
      goodbye?.settle({ kind: "refused", beat, refusal });
      return true;
    }
    if (revision > entry.knownRevision) entry.knownRevision = revision;
    if (ofReport && refusal !== undefined) {
      entry.report = undefined;
      report.settle({ kind: "refused", beat, refusal });
      this.#noteSettled(entry);
    }
    if (status !== undefined) {
      // Who is here is not offline, whoever says so: what it does meanwhile goes with its next heartbeat.
      entry.isThoughtOffline = status === "offline";
      if (entry.report === undefined)
        entry.agreedStatus = status === "offline" ? entry.agreedStatus : workingStatus(status);
      else entry.report.serverStatus = status;
    }
    return entry.report === undefined || ofReport || sequence === 0n || refusal !== undefined;
  }

  #beginAnew(entry: QueueEntry): void {
    this.#sent.delete(entry);
    this.#starting.add(entry);
    entry.startSentIn = 0n;
    entry.due = true;
    const { agreedStatus: content, knownRevision, report, goodbye } = entry;
    if (goodbye !== undefined) goodbye.sentIn = 0n;
    if (report !== undefined) {
      report.sentIn = 0n;
      report.serverStatus = undefined;
    } else if (content !== undefined && goodbye === undefined) {
      entry.report = { content, knownRevision, settle: () => undefined, sentIn: 0n, serverStatus: undefined };
    }
    this.#waiting.add(entry);
  }

  #noteSettled(entry: QueueEntry): void {
    if ((entry.report?.sentIn ?? 0n) === 0n && (entry.goodbye?.sentIn ?? 0n) === 0n) this.#sent.delete(entry);
  }

  /**
   * Said until the server has answered, since the first beat may be refused for what else it says. A claim anew once: said
   * again while the answer is on its way, it would take the agent from who claims it meanwhile.
   */
  #startOf(entry: QueueEntry, sequence: bigint): Pick<OutgoingBeat, "sessionStart"> {
    const { start } = entry.claim;
    if (!this.#starting.has(entry) || (start === "anew" && entry.startSentIn !== 0n)) return {};
    if (entry.startSentIn === 0n) entry.startSentIn = sequence;
    return { sessionStart: SESSION_START_VALUES[start] };
  }

  /** The stream holds the agent: what the program decided is done, and another stream only goes on with it. */
  #noteStarted(entry: QueueEntry): void {
    if (this.#starting.delete(entry)) entry.claim.start = "resume";
  }

  #remove(entry: QueueEntry): void {
    this.#entries.delete(entry.agentId);
    this.#starting.delete(entry);
    this.#waiting.delete(entry);
    this.#sent.delete(entry);
  }
}

function wantsOut({ due, report, goodbye }: QueueEntry): boolean {
  return due || report?.sentIn === 0n || goodbye?.sentIn === 0n;
}

/** What the entry says first of what it has to say. */
function nextBeat(entry: QueueEntry, sequence: bigint): OutgoingBeat {
  const { agentId, report, goodbye, knownRevision } = entry;
  entry.due = false;
  const pending = report?.sentIn === 0n ? report : goodbye?.sentIn === 0n ? goodbye : undefined;
  if (pending === undefined) {
    const content = entry.isThoughtOffline && goodbye === undefined ? entry.agreedStatus : undefined;
    return { agentId, ...knownRevisionField(knownRevision), ...(content === undefined ? {} : contentFields(content)) };
  }
  pending.sentIn = sequence;
  return { agentId, ...knownRevisionField(pending.knownRevision), ...contentFields(pending.content) };
}

function isAnswered<Content>(pending: Pending<Content> | undefined, sequence: bigint): pending is Pending<Content> {
  return pending !== undefined && pending.sentIn !== 0n && pending.sentIn <= sequence;
}

/** Whether the agent itself is refused, not what it said. */
function isFinal({ reason, retryAfterMs }: BeatRefusal, ofReport: boolean): boolean {
  if (reason === "REPORT_OUTDATED" || retryAfterMs !== undefined) return false;
  return reason !== "INVALID_FIELD" || !ofReport;
}

/** The status that an agent says again on a new stream, where the service has told it this one. */
export function workingStatus(status: AgentStatus | Unknown): WorkingStatus | undefined {
  return status === "idle" || status === "on_call" || status === "busy" ? status : undefined;
}

export function workingStatusOf(report: Report): WorkingStatus | undefined {
  return typeof report === "string" ? report : undefined;
}

function knownRevisionField(knownRevision: bigint): Pick<OutgoingBeat, "knownRevision"> {
  return knownRevision === 0n ? {} : { knownRevision };
}

function contentFields(content: BeatContent): Omit<OutgoingBeat, "agentId"> {
  if (content === "leaving") return { leaving: true };
  if (typeof content === "string") return { status: STATUS_VALUES[content] };
  const { reason, recoveryAt, retryAfterMs } = content.exhausted;
  const exhaustion: MessageInitShape<typeof ExhaustionSchema> = { reason: REASON_VALUES[reason] };
  if (retryAfterMs !== undefined) exhaustion.recovery = { case: "retryAfter", value: durationOf(retryAfterMs) };
  else if (recoveryAt !== undefined) exhaustion.recovery = { case: "recoveryAt", value: timestampOf(recoveryAt) };
  return { status: STATUS_VALUES.exhausted, exhaustion };
}
