import { setTimeout } from "node:timers/promises";
import { field, text } from "../../../../common/openclaw/values.ts";
import { messageOf } from "../gateway/log.ts";
import type { KeyedStore, SubagentRuntime } from "../gateway/plugin-api.ts";

// The seam for wakes: the client library will pass each offer of the service to `WakeTurns.take`. Until then nothing calls it.

/** A wake that the service offers to an agent of this gateway. */
export interface WakeOffer {
  readonly wakeId: string;
  /** The agent's id in the gateway. */
  readonly gatewayId: string;
  /** The first message of the turn. */
  readonly message: string;
  /** The service ended the wake, or asks to stop it. */
  readonly signal: AbortSignal;
}

export type WakeResult =
  /** The gateway drains, and takes no more work. */
  | { readonly kind: "declined" }
  | { readonly kind: "finished"; readonly outcome: "succeeded" | "failed"; readonly note: string | undefined }
  /** An earlier process of the gateway took this wake, and its end is not known. It is not started again: it may have had effects. */
  | { readonly kind: "lost" }
  /** The plugin stopped to wait. The turn may go on. */
  | { readonly kind: "abandoned" };

export interface WakeTurnsOptions {
  readonly subagent: SubagentRuntime;
  /** Survives restarts of the gateway, whose own idempotency keys do not. */
  readonly ledger: KeyedStore;
  readonly isDraining: () => boolean;
  /** The work is taken: the agent is busy from here on, seconds before the gateway's first event. */
  readonly onTaken: (gatewayId: string, runId: string) => void;
}

/** `waitForRun` returns `timeout` after this, which is no end. */
const WAIT_MS = 60_000;
/** A gateway that returns at once is not asked without a pause. */
const AGAIN_AFTER_MS = 1_000;
const MOST_NOTE = 1_024;

/** Turns wakes into turns of agents, each at most once. */
export class WakeTurns {
  readonly #options: WakeTurnsOptions;
  readonly #running = new Map<string, Promise<WakeResult>>();

  constructor(options: WakeTurnsOptions) {
    this.#options = options;
  }

  /** Starts the turn of a wake, and waits for its end. The same wake again gets the same result. Never rejects. */
  take(offer: WakeOffer): Promise<WakeResult> {
    const present = this.#running.get(offer.wakeId);
    if (present !== undefined) return present;
    const running = this.#take(offer).finally(() => this.#running.delete(offer.wakeId));
    this.#running.set(offer.wakeId, running);
    return running;
  }

  async #take({ wakeId, gatewayId, message, signal }: WakeOffer): Promise<WakeResult> {
    const { ledger, isDraining, onTaken } = this.#options;
    try {
      const recorded = resultOf(await ledger.lookup(wakeId));
      if (recorded !== undefined) return recorded;
      if (isDraining()) return { kind: "declined" };
      if (!(await ledger.registerIfAbsent(wakeId, { state: "taken" }))) {
        return resultOf(await ledger.lookup(wakeId)) ?? { kind: "lost" };
      }
      onTaken(gatewayId, wakeId);
      const ended = await this.#run(wakeId, { sessionKey: `agent:${gatewayId}:main`, message }, signal);
      if (ended.kind === "finished") await ledger.register(wakeId, ended);
      return ended;
    } catch (error) {
      return failedWith(error);
    }
  }

  async #run(
    wakeId: string,
    turn: { readonly sessionKey: string; readonly message: string },
    signal: AbortSignal,
  ): Promise<WakeResult> {
    try {
      const started = await this.#options.subagent.run({ ...turn, idempotencyKey: wakeId, deliver: false });
      return await this.#wait(text(started, "runId") ?? wakeId, signal);
    } catch (error) {
      return failedWith(error);
    }
  }

  async #wait(runId: string, signal: AbortSignal): Promise<WakeResult> {
    const aborted = new Promise<"aborted">((resolve) => {
      if (signal.aborted) resolve("aborted");
      else signal.addEventListener("abort", () => resolve("aborted"), { once: true });
    });
    for (;;) {
      const waited = await Promise.race([this.#options.subagent.waitForRun({ runId, timeoutMs: WAIT_MS }), aborted]);
      if (waited === "aborted") return { kind: "abandoned" };
      const status = field(waited, "status");
      if (status === "ok") return { kind: "finished", outcome: "succeeded", note: undefined };
      if (status === "error" && field(waited, "retryableTransportError") !== true) {
        return { kind: "finished", outcome: "failed", note: text(waited, "error")?.slice(0, MOST_NOTE) };
      }
      await setTimeout(AGAIN_AFTER_MS, undefined, { ref: false });
    }
  }
}

function failedWith(error: unknown): WakeResult {
  return { kind: "finished", outcome: "failed", note: messageOf(error).slice(0, MOST_NOTE) };
}

function resultOf(record: unknown): WakeResult | undefined {
  if (field(record, "kind") !== "finished") return undefined;
  const outcome = field(record, "outcome");
  if (outcome !== "succeeded" && outcome !== "failed") return undefined;
  return { kind: "finished", outcome, note: text(record, "note") };
}
