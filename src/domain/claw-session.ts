import type { Call } from "./directories.ts";
import type { ParsedBeat } from "./heartbeat.ts";
import type { Pace } from "./lease.ts";
import type { BeatResult, SessionOutput } from "./message-to-claw.ts";

/** The first message of a stream describes the claw behind it. All of it is optional. */
export interface SessionOptions {
  readonly clawIdentifier: string | undefined;
  readonly instanceId: string | undefined;
  readonly generation: bigint;
  /** Requires an `instanceId`. Default false. */
  readonly takesWakes?: boolean;
  /** The address of the client; absent: unknown. */
  readonly peer?: string | undefined;
}

/** The transport of a session's stream. A session never calls it within one of its own methods. */
export interface SessionListener {
  /** `take` has something to give, throws, or the session is over. */
  onOutput(): void;
  /** After a `submit` that returned false: the next message may come. */
  onCapacity(): void;
}

/** One heartbeat stream, without its transport. */
export interface HeartbeatSession {
  /**
   * Takes one message, whose envelope is valid. False: the caller waits for `onCapacity` before the next message. That is
   * back-pressure, and not the acknowledgement of this message: it slows down a client that sends faster than the database
   * applies.
   */
  submit(sequence: bigint, beats: readonly ParsedBeat[]): boolean;
  /**
   * The next output; undefined where there is none now.
   *
   * @throws Refusal the one that ended the session. The client sends again what is not acknowledged
   */
  take(): SessionOutput | undefined;
  /** Everything was taken after `finish`, or the session was closed. */
  readonly over: boolean;
  /** The client sends no more: `take` still gives what is due, then the session is over. Leases run on. */
  finish(): void;
  /** The stream is gone. Leases run on; what is unacknowledged may still be applied. Never throws, may be repeated. */
  close(): void;
}

/** A unary heartbeat, besides its beats. */
export interface UnaryOptions {
  readonly clawIdentifier: string | undefined;
  readonly leaseMs: number;
  /** The address of the client; absent: unknown. */
  readonly peer?: string | undefined;
  /** No beat is applied after it ends. Absent: they are tried for as long as changes are. */
  readonly call?: Call;
}

/** Heartbeats, by stream and by call. */
export interface Heartbeats {
  /** The pace in force, `intervalMs` already jittered. */
  pace(): Pace;
  openSession(options: SessionOptions, listener: SessionListener): HeartbeatSession;
  /** A unary heartbeat: holds no session. One result a beat, in order. */
  beat(beats: readonly ParsedBeat[], options: UnaryOptions): Promise<readonly BeatResult[]>;
}
