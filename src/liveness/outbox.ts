import type {
  AgentLoss,
  AgentUpdate,
  BeatResult,
  ClawMessage,
  DrainRequest,
  SessionOutput,
  WakeNotice,
} from "../domain/message-to-claw.ts";

/**
 * Limits of the results that wait for a client that does not read. At either limit the server stops reading the stream. One
 * message has at most so many results, and so many characters of invalid names.
 */
const MAX_UNREAD_RESULTS = 1_000;
const MAX_UNREAD_CHARACTERS = 262_144;

/** Most outputs have no messages, only an acknowledgement. */
const NONE: readonly ClawMessage[] = [];

/**
 * Everything that waits to be sent to one claw. A new kind of message chooses its queue in `put`: in order, or only the
 * newest of each agent, so that a client that reads nothing costs no more memory than its agents.
 */
export class Outbox {
  #results: BeatResult[] = [];
  #unreadCharacters = 0;
  /** The newest message about each agent that answers no beat. */
  readonly #changes = new Map<string, AgentUpdate | AgentLoss>();
  /** The newest state of each wake, by agent and wake. Undefined until the first one: most streams have none. */
  #wakes: Map<string, WakeNotice> | undefined;
  #drainRequest: DrainRequest | undefined;
  #sentSequence = 0n;
  readonly #firstIntervalMs: number;
  /** When the first acknowledgement was sent, by `performance.now()`; undefined: not yet. */
  #firstAcknowledgedAt: number | undefined;

  /** @param firstIntervalMs the interval until the stream's second beat: streams that opened together spread out by it */
  constructor(firstIntervalMs: number) {
    this.#firstIntervalMs = firstIntervalMs;
  }

  /** Whether a limit is reached, so that the server stops reading the stream. */
  get isFull(): boolean {
    return this.#results.length >= MAX_UNREAD_RESULTS || this.#unreadCharacters >= MAX_UNREAD_CHARACTERS;
  }

  put(message: ClawMessage): void {
    switch (message.kind) {
      case "result":
        this.#results.push(message);
        this.#unreadCharacters += message.agentId.length;
        return;
      case "change":
      case "lost":
        this.#changes.set(message.agentId, message);
        return;
      case "wake":
        this.#wakes ??= new Map();
        this.#wakes.set(`${message.agentId}\n${message.wakeId}`, message);
        return;
      case "draining":
        this.#drainRequest = message;
        return;
      default:
        message satisfies never;
    }
  }

  /** The session claimed the agent anew: the result of that beat replaces a change that waits. */
  dropChange(agentId: string): void {
    this.#changes.delete(agentId);
  }

  /** Takes everything that waits. Undefined: nothing does, and the acknowledgement was sent before. */
  take(acknowledgedSequence: bigint): SessionOutput | undefined {
    const messages = this.#takeMessages();
    if (messages.length === 0 && acknowledgedSequence === this.#sentSequence) return undefined;
    if (acknowledgedSequence > 0n) this.#firstAcknowledgedAt ??= performance.now();
    this.#sentSequence = acknowledgedSequence;
    return {
      acknowledgedSequence,
      messages,
      firstIntervalMs: this.#isSecondBeatDue() ? undefined : this.#firstIntervalMs,
    };
  }

  #takeMessages(): readonly ClawMessage[] {
    const isEmpty = this.#results.length === 0 && this.#changes.size === 0;
    if (isEmpty && this.#wakes === undefined && this.#drainRequest === undefined) return NONE;
    const messages: ClawMessage[] = this.#results;
    for (const change of this.#changes.values()) messages.push(change);
    if (this.#wakes !== undefined) for (const wake of this.#wakes.values()) messages.push(wake);
    if (this.#drainRequest !== undefined) messages.push(this.#drainRequest);
    this.#results = [];
    this.#unreadCharacters = 0;
    this.#changes.clear();
    this.#wakes = undefined;
    this.#drainRequest = undefined;
    return messages;
  }

  /** Counted from the first acknowledgement, which is late where very many streams open at once. */
  #isSecondBeatDue(): boolean {
    const since = this.#firstAcknowledgedAt;
    return since !== undefined && performance.now() - since >= this.#firstIntervalMs;
  }
}
