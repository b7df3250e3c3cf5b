import { randomUUID } from "node:crypto";
import type { ClawEvent, ClawTarget } from "./claw-messages.ts";
import { type Claw, ForkedClaw, LocalClaw } from "./claw-runner.ts";
import { spanOf } from "./format.ts";

export interface ClawSeatOptions {
  readonly name: string;
  readonly agentIds: readonly string[];
  readonly target: ClawTarget;
  /** Whether it gets a process of its own. */
  readonly forked: boolean;
  readonly seed: number;
  readonly speed: number;
  readonly rateLimitShare: number;
  /** The agents whose accounts are empty the first time. */
  readonly emptyAccounts: readonly string[];
  onEvent(seat: ClawSeat, news: ClawEvent): void;
  /** Its process ended, and nobody here asked for that. */
  onEnded(seat: ClawSeat, words: string): void;
}

/** One claw's place in a simulation: the same name and agents, but at each start another process with an identity anew. */
export class ClawSeat {
  readonly name: string;
  readonly agentIds: readonly string[];
  readonly #options: ClawSeatOptions;
  #claw: Claw | undefined;
  #starts = 0;
  #beats = false;
  #doing: () => string = () => "";

  constructor(options: ClawSeatOptions) {
    this.#options = options;
    this.name = options.name;
    this.agentIds = options.agentIds;
  }

  /** Whether it was started, and neither ended nor killed. */
  get runs(): boolean {
    return this.#claw !== undefined;
  }

  /** Whether the service has heard of each of its agents since its process started. */
  get beats(): boolean {
    return this.#beats;
  }

  /** What its process does, in a few words. */
  get doing(): string {
    return this.#doing();
  }

  /** @returns the number of its process; undefined when there could be none */
  start(): number | undefined {
    const { name, agentIds, target, forked, seed, speed, rateLimitShare, emptyAccounts } = this.#options;
    const Kind = forked ? ForkedClaw : LocalClaw;
    this.#beats = false;
    this.#doing = () => "starting";
    const claw = new Kind(
      {
        kind: "start",
        target,
        clawIdentifier: name,
        instanceId: randomUUID(),
        agentIds,
        // A claw that starts again does not do the same again.
        seed: seed + this.#starts,
        speed,
        rateLimitShare,
        emptyAccounts: this.#starts === 0 ? emptyAccounts : [],
      },
      {
        onEvent: (news) => {
          if (news.kind === "beating") this.#beats = true;
          if (news.kind === "waiting") this.#doing = () => "reconnecting";
          else if (this.#beats) this.#doing = () => "beating";
          this.#options.onEvent(this, news);
        },
        onEnded: (words) => {
          this.#claw = undefined;
          this.#doing = () => "ended by itself";
          this.#options.onEnded(this, words);
        },
      },
    );
    this.#claw = claw;
    this.#starts += 1;
    return claw.pid;
  }

  /** @returns the number that its process had, if it had one of its own */
  async kill(): Promise<number | undefined> {
    const claw = this.#claw;
    this.#claw = undefined;
    await claw?.kill();
    const killedAt = performance.now();
    this.#doing = () => `killed ${spanOf(performance.now() - killedAt)} ago`;
    return claw?.pid;
  }

  /** Says goodbye and ends, or ends at once when the signal aborts. */
  async stop(hurry: AbortSignal): Promise<void> {
    const claw = this.#claw;
    if (claw === undefined) return;
    this.#claw = undefined;
    this.#doing = () => "says goodbye";
    const kill = (): void => void claw.kill();
    hurry.addEventListener("abort", kill, { once: true });
    if (hurry.aborted) kill();
    await claw.stop();
    hurry.removeEventListener("abort", kill);
    this.#doing = () => "gone";
  }
}
