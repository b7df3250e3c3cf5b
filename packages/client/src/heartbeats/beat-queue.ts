import type { MessageInitShape } from "@bufbuild/protobuf";
import type {
  AgentStatus,
  ReportedExhaustion,
  SessionStart,
  WorkingStatus,
} from "../../../../common/contract/enum-names.ts";
import {
  EXHAUST_REASON_VALUES,
  SESSION_START_VALUES,
  STATUS_VALUES,
  type Unknown,
} from "../../../../common/contract/enum-values.ts";
import { durationOf, timestampOf } from "../../../../common/contract/timestamps.ts";
import type {
  AgentStatus as AgentStatusMessage,
  ExhaustionSchema,
} from "../../../../gen/client/harborforge/agents/v1/agent_pb.ts";
import type { SessionStart as SessionStartMessage } from "../../../../gen/client/harborforge/agents/v1/agent_service_pb.ts";
import type { BeatRefusal, BeatView } from "../views.ts";

/** What an agent reports. */
export type Report = WorkingStatus | { readonly exhausted: ReportedExhaustion };

/** What a beat can say: a report, or the goodbye. */
export type BeatContent = Report | "leaving";

/** The result of a report or a goodbye. */
export type ReportResult =
  /** Acknowledged. `serverStatus` is the status that the server has set since; undefined if it is the reported one. */
  | { readonly kind: "applied"; readonly serverStatus: AgentStatus | Unknown | undefined }
  /** The agent reported something newer before the acknowledgement. */
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

/** Why an agent beats here, as its program decided. The program and the stream share this object. */
export interface AgentClaim {
  /** What a new stream says of the agent. `resume`: the server accepted the program's claim. */
  start: SessionStart;
}

/** What both sides agreed on through another stream. */
export interface AgreedState {
  readonly agreedStatus: WorkingStatus | undefined;
  readonly knownRevision: bigint;
}

const NOTHING_AGREED: AgreedState = { agreedStatus: undefined, knownRevision: 0n };

/** The limits of one message. */
export interface MessageLimits {
  readonly beats: number;
  readonly bytes: number;
}

/** A report or goodbye that is not acknowledged yet. */
interface Pending<Content> {
  readonly content: Content;
  /** The newest revision that the agent knew when it reported. Later revisions must not make an older report look informed. */
  readonly knownRevision: bigint;
  readonly settle: Settle;
  /** The sequence of the message that carries it; 0 before it is sent. */
  sentIn: bigint;
  /** The status that the server has set since the report. */
  serverStatus: AgentStatus | Unknown | undefined;
}

/** The state of one agent. It can move to the queue of another stream. */
export interface QueueEntry {
  readonly agentId: string;
  /** The most bytes that a beat of the agent takes in a message. */
  readonly bytes: number;
  knownRevision: bigint;
  /** The status on which both sides agree. A new stream reports it again, since the lease may have expired. */
  agreedStatus: WorkingStatus | undefined;
  /** The server has the agent as offline, for example because its lease expired while the machine slept. */
  isThoughtOffline: boolean;
  report: Pending<Report> | undefined;
  /** Sent after the report: an exhaustion outlasts the goodbye. */
  goodbye: Pending<"leaving"> | undefined;
  /** Whether the next message renews its lease. */
  due: boolean;
  readonly claim: AgentClaim;
  /** The sequence of the message that first said why the agent beats; 0 before that. */
  startSentIn: bigint;
}

/** Status, exhaustion, revision, and all length prefixes, each at its longest. */
const BYTES_BESIDES_ID = 64;

/**
 * The reports of the agents of one heartbeat stream, and what the server acknowledged of them. A report is sent until it is
 * acknowledged. Beats after that carry no status: an exhaustion that is repeated after its recovery would be a new one.
 */
export class BeatQueue {
  readonly #entries = new Map<string, QueueEntry>();
  /** Agents with something to send, in the order in which it came up. */
  readonly #waiting = new Set<QueueEntry>();
  /** Agents with a report or goodbye that was sent and not acknowledged. */
  readonly #sent = new Set<QueueEntry>();
  /** Agents for which the server has sent no result on this stream. */
  readonly #starting = new Set<QueueEntry>();

  get size(): number {
    return this.#entries.size;
  }

  /** Whether an agent has something to send. */
  get hasWork(): boolean {
    return this.#waiting.size > 0;
  }

  /** Whether every report and goodbye is acknowledged. */
  get isSettled(): boolean {
    if (this.#sent.size > 0) return false;
    for (const { report, goodbye } of this.#waiting) if (report !== undefined || goodbye !== undefined) return false;
    return true;
  }

  has(agentId: string): boolean {
    return this.#entries.has(agentId);
  }

  /** The newest revision of an agent that the server has sent; 0 before the first. */
  knownRevision(agentId: string): bigint {
    return this.#entries.get(agentId)?.knownRevision ?? 0n;
  }

  /**
   * Adds an agent without a report. Its first beat says only why it beats, and the status on which both sides agreed through
   * another queue.
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

  /** Takes over an agent of another queue with its reports. All of them are sent here. */
  adopt(entry: QueueEntry): void {
    this.#entries.set(entry.agentId, entry);
    this.#beginAnew(entry);
  }

  /** Removes the newest agents until `most` are left. @returns what was removed */
  removeSurplus(most: number): QueueEntry[] {
    const surplus = [...this.#entries.values()].slice(most);
    for (const entry of surplus) this.#remove(entry);
    return surplus;
  }

  /**
   * Queues a report or goodbye. It replaces an earlier report.
   *
   * @param knownRevision the newest revision that the agent knew. Default: the newest that the server has sent
   * @returns false for an agent that was not added, was removed, or has said goodbye
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
      // A beat after the goodbye would bring the agent back.
      if (entry.goodbye !== undefined && entry.goodbye.sentIn !== 0n) continue;
      entry.due = true;
      this.#waiting.add(entry);
    }
  }

  /** Begins a new stream: all that is not acknowledged is sent again. */
  restart(): void {
    for (const entry of this.#entries.values()) this.#beginAnew(entry);
  }

  /** The beats of the message with this sequence: as many as the limits allow, at least one. The rest waits. */
  nextBeats(sequence: bigint, limits: MessageLimits): OutgoingBeat[] {
    const beats: OutgoingBeat[] = [];
    let bytes = 0;
    for (const entry of this.#waiting) {
      while (hasNextBeat(entry)) {
        bytes += entry.bytes;
        if (beats.length >= limits.beats || (beats.length > 0 && bytes > limits.bytes)) return beats;
        beats.push({ ...nextBeat(entry, sequence), ...this.#startOf(entry, sequence) });
      }
      this.#waiting.delete(entry);
      if (entry.report !== undefined || entry.goodbye !== undefined) this.#sent.add(entry);
    }
    return beats;
  }

  /** The server has handled all messages up to this one. Call it after `receive` for the results of the same response. */
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
   * Applies a result.
   *
   * @returns false if a newer revision or a newer report of the agent replaced it, and for agents of other streams
   */
  receive(beat: BeatView): boolean {
    const { agentId, sequence, status, revision, refusal } = beat;
    const entry = this.#entries.get(agentId);
    if (entry === undefined) return false;
    if (refusal === undefined || refusal.reason === "REPORT_OUTDATED") this.#noteStarted(entry);
    // The server rejected the beat before it read the claim, so the next beat says it again.
    else if (sequence !== 0n && sequence === entry.startSentIn) entry.startSentIn = 0n;
    if (refusal === undefined && revision < entry.knownRevision) return false;
    const { report, goodbye } = entry;
    const ofReport = sequence !== 0n && report?.sentIn === sequence;
    if (refusal !== undefined && isFinal(refusal, ofReport)) {
      // Further beats of this agent on this stream have no effect.
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
      // The agent is here. Its next beat reports its status, which brings it back.
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
   * Sent until the server has answered, since it may reject the first beat for another field. `anew` is sent once: a second one
   * could take the agent from a process that claims it in between.
   */
  #startOf(entry: QueueEntry, sequence: bigint): Pick<OutgoingBeat, "sessionStart"> {
    const { start } = entry.claim;
    if (!this.#starting.has(entry) || (start === "anew" && entry.startSentIn !== 0n)) return {};
    if (entry.startSentIn === 0n) entry.startSentIn = sequence;
    return { sessionStart: SESSION_START_VALUES[start] };
  }

  /** The stream holds the agent. Another stream only resumes it. */
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

function hasNextBeat({ due, report, goodbye }: QueueEntry): boolean {
  return due || report?.sentIn === 0n || goodbye?.sentIn === 0n;
}

/** The next beat of the entry. */
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

/** Whether the server rejects the agent itself, not the report. */
function isFinal({ reason, retryAfterMs }: BeatRefusal, ofReport: boolean): boolean {
  if (reason === "REPORT_OUTDATED" || retryAfterMs !== undefined) return false;
  return reason !== "INVALID_FIELD" || !ofReport;
}

/** The status that a new stream reports again if the service has this one. */
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
  const exhaustion: MessageInitShape<typeof ExhaustionSchema> = { reason: EXHAUST_REASON_VALUES[reason] };
  if (retryAfterMs !== undefined) exhaustion.recovery = { case: "retryAfter", value: durationOf(retryAfterMs) };
  else if (recoveryAt !== undefined) exhaustion.recovery = { case: "recoveryAt", value: timestampOf(recoveryAt) };
  return { status: STATUS_VALUES.exhausted, exhaustion };
}
