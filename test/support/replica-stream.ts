import type { ReportedExhaustion, SessionStart, WorkingStatus } from "../../common/contract/enum-names.ts";
import type { SessionListener } from "../../src/domain/claw-session.ts";
import type { ParsedBeat } from "../../src/domain/heartbeat.ts";
import type { BeatResult, SessionOutput, WakeNotice } from "../../src/domain/message-to-claw.ts";
import type { Beat } from "../../src/domain/status-machine.ts";
import type { WakeReply } from "../../src/domain/wake.ts";
import type { StreamSession } from "../../src/liveness/stream-session.ts";
import { until } from "./until.ts";

/** A beat without a status. */
export function alive(agentId: string): ParsedBeat {
  return { agentId, leaving: false, beat: { report: undefined, knownRevision: undefined } };
}

export function reports(
  agentId: string,
  report: WorkingStatus | { readonly exhausted: ReportedExhaustion },
  knownRevision?: bigint,
): ParsedBeat {
  return { agentId, leaving: false, beat: { report, knownRevision } };
}

export function goodbye(agentId: string): ParsedBeat {
  return { agentId, leaving: true, beat: { report: undefined, knownRevision: undefined } };
}

/** A beat that replies to a wake, with or without a status. */
export function replies(
  { agentId, wakeId, offerRevision }: Pick<WakeNotice, "agentId" | "wakeId" | "offerRevision">,
  type: WakeReply["type"],
  { report, knownRevision, ...more }: Partial<WakeReply> & Partial<Pick<Beat, "report" | "knownRevision">> = {},
): ParsedBeat {
  const reply: WakeReply = {
    wakeId,
    offerRevision,
    type,
    reason: "unsuitable",
    outcome: "succeeded",
    note: "",
    ...more,
  };
  return { agentId, leaving: false, beat: { report, knownRevision, replies: [reply] } };
}

/** The same beat, which also says why its stream beats for the agent. */
export function starting(start: SessionStart, beat: ParsedBeat): ParsedBeat {
  return { ...beat, start };
}

/** A result as its claw reads it: of a beat, or (`sequence` 0) a change or the loss of an agent. */
export type ReceivedResult = Omit<BeatResult, "kind">;

/** The results that an output brings, in their order. */
export function resultsIn({ messages }: SessionOutput): ReceivedResult[] {
  const unasked = { status: null, exhaustion: null, revision: null, refusal: null, sequence: 0n, beatIndex: 0 };
  return messages.flatMap((message): ReceivedResult[] => {
    if (message.kind === "result") return [message];
    return message.kind === "change" || message.kind === "lost" ? [{ ...unasked, ...message }] : [];
  });
}

/** A heartbeat stream without a socket: the client's messages, and all outputs of the session. */
export class TestStream implements Disposable {
  readonly session: StreamSession;
  /** In the order of their arrival. */
  readonly results: ReceivedResult[] = [];
  /** The states of wakes, in the order of their arrival. */
  readonly notices: WakeNotice[] = [];
  acknowledged = 0n;
  /** The session has sent all its outputs. */
  ended = false;
  /** The error with which the session rejected the stream. */
  failure: unknown;
  reconnectWithinMs: number | undefined;
  #sequence = 0n;
  #makeRoom: (() => void) | undefined;
  #onAcknowledged: ((sequence: bigint) => void) | undefined;

  /** @param open opens the session, which notifies the listener of new outputs */
  constructor(open: (listener: SessionListener) => StreamSession) {
    this.session = open({ onOutput: () => this.#read(), onCapacity: () => this.#makeRoom?.() });
    this.#read();
  }

  /** Called whenever the session can accept another message after it could not. */
  onCapacity(listener: () => void): void {
    this.#makeRoom = listener;
  }

  /** Called at the moment of every acknowledgement. */
  onAcknowledged(listener: (sequence: bigint) => void): void {
    this.#onAcknowledged = listener;
  }

  /** Sends one message. @returns its sequence */
  send(...beats: ParsedBeat[]): bigint {
    this.#sequence += 1n;
    this.session.submit(this.#sequence, beats);
    return this.#sequence;
  }

  /** Sends one message and waits for its acknowledgement. @returns its results */
  async say(...beats: ParsedBeat[]): Promise<ReceivedResult[]> {
    const sequence = this.send(...beats);
    await this.acknowledgedUpTo(sequence);
    return this.resultsOf(sequence);
  }

  async acknowledgedUpTo(sequence: bigint, withinMs?: number): Promise<void> {
    await until(`message ${sequence} is acknowledged`, () => this.acknowledged >= sequence, withinMs);
  }

  /** In the order of its beats, which differs from the order of their settlement. */
  resultsOf(sequence: bigint): ReceivedResult[] {
    return this.results
      .filter((result) => result.sequence === sequence)
      .sort((one, other) => one.beatIndex - other.beatIndex);
  }

  /** The pushed results of an agent. */
  unasked(agentId: string): ReceivedResult[] {
    return this.results.filter((result) => result.sequence === 0n && result.agentId === agentId);
  }

  /** Resolves with the first notice of this state, from now on or before. */
  async notice(wakeId: string, state: WakeNotice["state"], withinMs?: number): Promise<WakeNotice> {
    return await until(
      `a notice that ${wakeId} is ${state}`,
      () => this.notices.find((notice) => notice.wakeId === wakeId && notice.state === state),
      withinMs,
    );
  }

  /** The stream is gone, for any reason. */
  close(): void {
    this.session.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #read(): void {
    try {
      for (let output = this.session.take(); output !== undefined; output = this.session.take()) {
        this.results.push(...resultsIn(output));
        for (const message of output.messages) {
          if (message.kind === "wake") this.notices.push(message);
          if (message.kind === "draining") this.reconnectWithinMs ??= message.reconnectWithinMs;
        }
        if (output.acknowledgedSequence > this.acknowledged) {
          this.acknowledged = output.acknowledgedSequence;
          this.#onAcknowledged?.(output.acknowledgedSequence);
        }
      }
      this.ended = this.session.over;
    } catch (refusal) {
      this.failure = refusal;
    }
  }
}
