import type { Call } from "../domain/directory.ts";
import type { Refusal } from "../domain/errors.ts";
import type { BeatResult, ParsedBeat } from "../domain/heartbeat.ts";
import { databaseUnavailable } from "../storage/failures.ts";
import { boundsOf } from "../storage/retries.ts";
import type { BeatIntake } from "./beat-intake.ts";
import type { BeatOutcome, PendingBeat } from "./pending-beat.ts";
import type { Registry } from "./registry.ts";
import { startsNoSession } from "./session-errors.ts";

/** What a unary heartbeat says besides its beats. */
export interface UnaryOptions {
  readonly clawIdentifier: string | undefined;
  readonly leaseMs: number;
  /** Beats that are not applied when it ends are not applied at all. */
  readonly call?: Call;
}

/** Heartbeats without a stream: they hold no session, apply under the epoch in force and supersede nobody. */
export class UnaryBeats {
  readonly #registry: Registry;
  readonly #intake: BeatIntake;

  constructor(registry: Registry, intake: BeatIntake) {
    this.#registry = registry;
    this.#intake = intake;
  }

  /**
   * One result a beat, in order.
   *
   * @throws Refusal `DATABASE_UNAVAILABLE` where the database was away too long to say what became of a beat
   */
  beat(beats: readonly ParsedBeat[], options: UnaryOptions): Promise<readonly BeatResult[]> {
    const bounds = boundsOf(options.call);
    return Promise.all(beats.map((parsed, beatIndex) => this.#one(parsed, beatIndex, options, bounds)));
  }

  async #one(
    parsed: ParsedBeat,
    beatIndex: number,
    { clawIdentifier, leaseMs }: UnaryOptions,
    { deadline, call }: ReturnType<typeof boundsOf>,
  ): Promise<BeatResult> {
    const { agentId } = parsed;
    const refuse = (refusal: Refusal): BeatResult =>
      result(agentId, beatIndex, { kind: "refused", refusal, agent: undefined });
    if ("refusal" in parsed) return refuse(parsed.refusal);
    if (parsed.start !== undefined) return refuse(startsNoSession(beatIndex));
    const outcome = await new Promise<BeatOutcome>((resolve) => {
      const timer = setTimeout(
        () => resolve({ kind: "open", refusal: databaseUnavailable(undefined, true) }),
        Math.max(0, deadline - performance.now()),
      );
      const pending: PendingBeat = {
        agentId,
        beat: parsed.leaving ? "leaving" : parsed.beat,
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
        settle: (settled) => {
          clearTimeout(timer);
          resolve(settled);
        },
      };
      const entry = this.#registry.get(agentId);
      if (entry === undefined) this.#intake.acceptElsewhere(pending);
      else this.#intake.accept(entry, pending);
    });
    // Nothing is acknowledged: the caller sends all of them again, which harms nothing.
    if (outcome.kind === "open") throw outcome.refusal;
    return result(agentId, beatIndex, outcome);
  }
}

function result(agentId: string, beatIndex: number, outcome: Exclude<BeatOutcome, { kind: "open" }>): BeatResult {
  const refusal = outcome.kind === "refused" ? outcome.refusal : null;
  // Of an agent of another claw nothing is told.
  const view = refusal === null || refusal.reason === "REPORT_OUTDATED" ? outcome.agent : undefined;
  return {
    agentId,
    status: view?.status ?? null,
    exhaustion: view?.exhaustion ?? null,
    revision: view?.revision ?? null,
    refusal,
    sequence: 0n,
    beatIndex,
  };
}
