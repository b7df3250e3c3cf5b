/** Messages of one stream that may wait for their acknowledgement before the session stops reading. */
const MOST_UNACKNOWLEDGED = 64;

/** A message of the claw that is not acknowledged yet. */
export interface ReceivedMessage {
  readonly sequence: bigint;
  /** By `performance.now()`. */
  readonly receivedAt: number;
  /** Its beats that are neither applied nor rejected. */
  unsettledBeats: number;
}

/** The messages of one stream that wait for their acknowledgement, which is cumulative and in their order. */
export class MessageWindow {
  /** In the order of their sequences. */
  readonly #messages: ReceivedMessage[] = [];
  readonly #onAcknowledged: (message: ReceivedMessage) => void;
  #acknowledgedSequence = 0n;

  constructor(onAcknowledged: (message: ReceivedMessage) => void) {
    this.#onAcknowledged = onAcknowledged;
  }

  /** All messages up to it are applied or rejected; 0 before the first. */
  get acknowledgedSequence(): bigint {
    return this.#acknowledgedSequence;
  }

  get isEmpty(): boolean {
    return this.#messages.length === 0;
  }

  get isFull(): boolean {
    return this.#messages.length >= MOST_UNACKNOWLEDGED;
  }

  /** Takes in the next message. @param beats how many beats it has */
  add(sequence: bigint, beats: number): ReceivedMessage {
    const message: ReceivedMessage = { sequence, receivedAt: performance.now(), unsettledBeats: beats };
    this.#messages.push(message);
    return message;
  }

  /** Acknowledges all messages from the first on that have no unsettled beat. */
  advance(): void {
    let first = this.#messages[0];
    while (first !== undefined && first.unsettledBeats === 0) {
      this.#messages.shift();
      this.#acknowledgedSequence = first.sequence;
      this.#onAcknowledged(first);
      first = this.#messages[0];
    }
  }
}
