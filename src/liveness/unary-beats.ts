import type { UnaryOptions } from "../domain/claw-session.ts";
import type { Refusal } from "../domain/errors.ts";
import type { ParsedBeat } from "../domain/heartbeat.ts";
import type { BeatResult } from "../domain/message-to-claw.ts";
import { databaseUnavailable } from "../storage/failures.ts";
import { boundsOf } from "../storage/retries.ts";
import type { BeatIntake } from "./beat-intake.ts";
import type { HeartbeatMetrics } from "./heartbeat-metrics.ts";
import { type BeatOutcome, beatResult, type PendingBeat, type SettledOutcome } from "./pending-beat.ts";
import type { Registry } from "./registry.ts";
import { finishesOnly, startsNoSession } from "./session-refusals.ts";

/** Heartbeats without a stream: they hold no session, apply under the epoch in force, and supersede no session. */
export class UnaryBeats {
  readonly #registry: Registry;
  readonly #intake: BeatIntake;
  readonly #metrics: HeartbeatMetrics;

  constructor(registry: Registry, intake: BeatIntake, metrics: HeartbeatMetrics) {
    this.#registry = registry;
    this.#intake = intake;
    this.#metrics = metrics;
  }

  /**
   * One result a beat, in order.
   *
   * @throws Refusal `DATABASE_UNAVAILABLE` where a beat was not settled before the call's deadline
   */
  async beat(beats: readonly ParsedBeat[], options: UnaryOptions): Promise<readonly BeatResult[]> {
    const receivedAt = performance.now();
    const bounds = boundsOf(options.call);
    const results = await Promise.all(beats.map((parsed, beatIndex) => this.#one(parsed, beatIndex, options, bounds)));
    this.#metrics.acknowledged(receivedAt);
    return results;
  }

  async #one(
    parsed: ParsedBeat,
    beatIndex: number,
    { clawIdentifier, leaseMs }: UnaryOptions,
    { deadline, call }: ReturnType<typeof boundsOf>,
  ): Promise<BeatResult> {
    const { agentId } = parsed;
    const settled = (outcome: SettledOutcome): BeatResult => {
      this.#metrics.settled(outcome);
      return beatResult(agentId, outcome, 0n, beatIndex);
    };
    const refuse = (refusal: Refusal): BeatResult => settled({ kind: "refused", refusal, agent: undefined });
    if ("refusal" in parsed) return refuse(parsed.refusal);
    if (parsed.start !== undefined) return refuse(startsNoSession(beatIndex));
    const unfit = parsed.beat.replies?.findIndex(({ type }) => type !== "finished") ?? -1;
    if (unfit >= 0) return refuse(finishesOnly(beatIndex, unfit));
    const outcome = await new Promise<BeatOutcome>((resolve) => {
      const timer = setTimeout(
        () => resolve({ kind: "open", refusal: databaseUnavailable(undefined, true) }),
        Math.max(0, deadline - performance.now()),
      );
      const pending: PendingBeat = {
        agentId,
        beat: parsed.leaving && parsed.beat.replies === undefined ? "leaving" : parsed.beat,
        clawIdentifier,
        leaseMs,
        holder: undefined,
        epoch: 0n,
        heldOff: false,
        reclaimed: false,
        deadline,
        get abandoned() {
          return call.over || performance.now() >= deadline;
        },
        settle: (end) => {
          clearTimeout(timer);
          resolve(end);
        },
      };
      const entry = this.#registry.get(agentId);
      if (entry === undefined) this.#intake.acceptElsewhere(pending);
      else this.#intake.accept(entry, pending);
    });
    // Nothing is acknowledged. The caller may send all beats again: that is harmless.
    if (outcome.kind === "open") throw outcome.refusal;
    return settled(outcome);
  }
}
