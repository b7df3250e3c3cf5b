import type { ReportedExhaustion, SessionStart, WorkingStatus } from "../../src/contract/words.ts";
import type { BeatResult, ParsedBeat } from "../../src/domain/heartbeat.ts";
import type { Session, SessionListener } from "../../src/liveness/session.ts";
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

/** The same beat, which also says why its stream beats for the agent. */
export function starting(start: SessionStart, beat: ParsedBeat): ParsedBeat {
  return { ...beat, start };
}

/** A heartbeat stream without a socket: what a client sends, and everything that it is told. */
export class TestStream implements Disposable {
  readonly session: Session;
  /** In the order in which they came. */
  readonly results: BeatResult[] = [];
  acknowledged = 0n;
  /** The session has said all it had to say. */
  ended = false;
  /** What the session refused the stream with. */
  failure: unknown;
  reconnectWithinMs: number | undefined;
  #sequence = 0n;
  #makeRoom: (() => void) | undefined;
  #onAcknowledged: ((sequence: bigint) => void) | undefined;

  /** @param open opens the session, which tells the listener what there is to take */
  constructor(open: (listener: SessionListener) => Session) {
    this.session = open({ onNews: () => this.#read(), onCapacity: () => this.#makeRoom?.() });
    this.#read();
  }

  /** Called whenever the session can take another message after it could not. */
  onCapacity(listener: () => void): void {
    this.#makeRoom = listener;
  }

  /** Called at the very moment of every acknowledgement. */
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
  async say(...beats: ParsedBeat[]): Promise<BeatResult[]> {
    const sequence = this.send(...beats);
    await this.acknowledgedUpTo(sequence);
    return this.resultsOf(sequence);
  }

  async acknowledgedUpTo(sequence: bigint, withinMs?: number): Promise<void> {
    await until(`message ${sequence} is acknowledged`, () => this.acknowledged >= sequence, withinMs);
  }

  /** In the order of its beats, which is not that in which they were settled. */
  resultsOf(sequence: bigint): BeatResult[] {
    return this.results
      .filter((result) => result.sequence === sequence)
      .sort((one, other) => one.beatIndex - other.beatIndex);
  }

  /** What it was told of an agent without having asked. */
  unasked(agentId: string): BeatResult[] {
    return this.results.filter((result) => result.sequence === 0n && result.agentId === agentId);
  }

  /** The stream is gone, however that came. */
  close(): void {
    this.session.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #read(): void {
    try {
      for (let output = this.session.take(); output !== undefined; output = this.session.take()) {
        this.results.push(...output.results);
        this.reconnectWithinMs ??= output.reconnectWithinMs;
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
