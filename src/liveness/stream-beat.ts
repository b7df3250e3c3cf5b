import type { HeldAgent } from "./held-agent.ts";
import type { ReceivedMessage } from "./message-window.ts";
import type { BeatOutcome, PendingBeat } from "./pending-beat.ts";

/** The session that a beat came with. */
export interface BeatOwner {
  /** The beat is applied or rejected, or cannot be applied. */
  onSettled(beat: StreamBeat, outcome: BeatOutcome): void;
}

/** A beat that came with a stream. A class, and not an object with its functions: there are thousands a second. */
export class StreamBeat implements PendingBeat {
  readonly #owner: BeatOwner;
  readonly message: ReceivedMessage;
  readonly beatIndex: number;
  readonly holder: HeldAgent;
  readonly beat: PendingBeat["beat"];
  readonly leaseMs: number;
  epoch = 0n;
  heldOff = false;
  reclaimed = false;
  /** Whether its program claims the agent anew by it, and the session has not made that claim yet. */
  claimsAnew = false;

  constructor(
    owner: BeatOwner,
    message: ReceivedMessage,
    beatIndex: number,
    holder: HeldAgent,
    beat: PendingBeat["beat"],
    leaseMs: number,
  ) {
    this.#owner = owner;
    this.message = message;
    this.beatIndex = beatIndex;
    this.holder = holder;
    this.beat = beat;
    this.leaseMs = leaseMs;
  }

  get agentId(): string {
    return this.holder.agentId;
  }

  /** The session names the claw. */
  get clawIdentifier(): undefined {
    return undefined;
  }

  /** A beat of a stream applies even if the stream has ended. */
  get deadline(): undefined {
    return undefined;
  }

  get abandoned(): boolean {
    return false;
  }

  settle(outcome: BeatOutcome): void {
    this.#owner.onSettled(this, outcome);
  }
}
