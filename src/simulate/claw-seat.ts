import { randomUUID } from "node:crypto";
import type { ClawEvent, ClawTarget } from "./claw-messages.ts";
import { type Claw, ForkedClaw, LocalClaw } from "./claw-runner.ts";
import { spanOf } from "./format.ts";
import { OwnOutages } from "./own-outages.ts";

export interface ClawSeatOptions {
  readonly name: string;
  readonly agentIds: readonly string[];
  readonly target: ClawTarget;
  /** Whether the claw is a process of its own. */
  readonly forked: boolean;
  readonly seed: number;
  readonly speed: number;
  readonly rateLimitShare: number;
  /** The agents whose accounts run empty in the first run. */
  readonly emptyAccounts: readonly string[];
  onEvent(seat: ClawSeat, event: ClawEvent): void;
  /** Its process ended unexpectedly. `lastOutput`: the end of its standard error. */
  onEnded(seat: ClawSeat, lastOutput: string): void;
}

/** Errors of this machine's own network: it has no route, no address, no name server or no sockets left. */
const OWN_NETWORK = /\b(ENETUNREACH|ENETDOWN|EADDRNOTAVAIL|EAI_AGAIN|EMFILE|ENFILE)\b/;

/**
 * A claw of the simulation over several runs: name and agents stay, and each start is a new process with a new instance
 * id.
 */
export class ClawSeat {
  readonly name: string;
  readonly agentIds: readonly string[];
  readonly #options: ClawSeatOptions;
  #claw: Claw | undefined;
  #starts = 0;
  #beats = false;
  #hasNetwork = true;
  #outages = new OwnOutages();
  #endedUnexpectedly = false;
  #doing: () => string = () => "";

  constructor(options: ClawSeatOptions) {
    this.#options = options;
    this.name = options.name;
    this.agentIds = options.agentIds;
  }

  /** Whether the claw is running. */
  get runs(): boolean {
    return this.#claw !== undefined;
  }

  /** Whether the service has applied a beat of each of its agents since the start. */
  get beats(): boolean {
    return this.#beats;
  }

  /** For how long it did not run or had no network, in outages of its own within the last `withinMs`. */
  outageMs(withinMs: number): number {
    return this.#outages.lengthMs(withinMs);
  }

  /** The state of its process in a few words. */
  get doing(): string {
    return this.#doing();
  }

  /** @returns the process id; undefined without a process of its own */
  start(): number | undefined {
    const { name, agentIds, target, forked, seed, speed, rateLimitShare, emptyAccounts } = this.#options;
    const Kind = forked ? ForkedClaw : LocalClaw;
    this.#beats = false;
    this.#hasNetwork = true;
    // A claw that was killed on purpose had no outage of its own.
    if (!this.#endedUnexpectedly) this.#outages = new OwnOutages();
    this.#endedUnexpectedly = false;
    this.#doing = () => "starting";
    const claw = new Kind(
      {
        kind: "start",
        target,
        clawIdentifier: name,
        instanceId: randomUUID(),
        agentIds,
        // A restarted claw does not repeat its former actions.
        seed: seed + this.#starts,
        speed,
        rateLimitShare,
        emptyAccounts: this.#starts === 0 ? emptyAccounts : [],
      },
      {
        onEvent: (event) => {
          if (event.kind === "alive") {
            if (this.#hasNetwork) this.#outages.sign();
            return;
          }
          if (event.kind === "waiting") this.#hasNetwork = !OWN_NETWORK.test(event.reason);
          if (event.kind === "connected") this.#hasNetwork = true;
          if (event.kind === "beating") this.#beats = true;
          if (event.kind === "waiting") this.#doing = () => "reconnecting";
          else if (this.#beats) this.#doing = () => "beating";
          this.#options.onEvent(this, event);
        },
        onEnded: (lastOutput) => {
          this.#claw = undefined;
          this.#endedUnexpectedly = true;
          this.#doing = () => "ended unexpectedly";
          this.#options.onEnded(this, lastOutput);
        },
      },
    );
    this.#claw = claw;
    this.#starts += 1;
    return claw.pid;
  }

  /** @returns the process id that it had; undefined without a process of its own */
  async kill(): Promise<number | undefined> {
    const claw = this.#claw;
    this.#claw = undefined;
    await claw?.kill();
    const killedAt = performance.now();
    this.#doing = () => `killed ${spanOf(performance.now() - killedAt)} ago`;
    return claw?.pid;
  }

  /** Sends goodbyes and stops. Kills the claw when the signal aborts. */
  async stop(hurry: AbortSignal): Promise<void> {
    const claw = this.#claw;
    if (claw === undefined) return;
    this.#claw = undefined;
    this.#doing = () => "sending goodbyes";
    const kill = (): void => void claw.kill();
    hurry.addEventListener("abort", kill, { once: true });
    if (hurry.aborted) kill();
    await claw.stop();
    hurry.removeEventListener("abort", kill);
    this.#doing = () => "gone";
  }
}
