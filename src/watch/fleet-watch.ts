import type { Micros } from "../../common/contract/time.ts";
import { Backoff } from "../../common/scheduling/backoff.ts";
import type { Transition } from "../domain/agent.ts";
import type { ExpiryBrake, Fleet } from "../domain/directories.ts";
import type { Refusal } from "../domain/errors.ts";
import { predicateOf } from "../domain/filter.ts";
import { FleetCounts } from "../domain/fleet-counts.ts";
import type { FleetWatchMessage, FleetWatchQuery } from "../domain/watch-message.ts";
import { failureKind, isPermanent } from "../storage/failures.ts";
import { watchTooOld } from "./watch-refusals.ts";

/** Claws in one message at most. */
const MESSAGE_CLAWS = 1_000;
/** How soon a change of the brake is noticed, in milliseconds. */
const LOOK_EVERY_MS = 1_000;
/** Of the time, for counts of suspect agents: those of a very large fleet are rarer. */
const SUSPECTS_SHARE = 0.1;
const FIRST_RETRY_MS = 100;
const LONGEST_RETRY_MS = 2_000;

export interface FleetWatchOptions {
  readonly query: FleetWatchQuery;
  /** Ends the watch when it is aborted. */
  readonly signal: AbortSignal;
  /** The position of the feed. */
  readonly position: bigint;
  readonly brake: () => ExpiryBrake;
  /** Counts all agents that pass the filter. */
  readonly count: () => Promise<Fleet>;
  readonly maxAgeMs: number;
  readonly messageEveryMs: number;
  readonly suspectsEveryMs: number;
}

/** One watch of the fleet's counts: a count of all agents, and the transitions after it. */
export class FleetWatch {
  readonly #options: FleetWatchOptions;
  readonly #counts: FleetCounts;
  readonly #backoff = new Backoff(FIRST_RETRY_MS, LONGEST_RETRY_MS);
  /** By `performance.now()`. */
  readonly #endsAt: number;
  /** The feed's position. */
  #position: bigint;
  /** The revision of the last count: the counts include all transitions up to it. */
  #countedAt = 0n;
  /** The transitions since a count began. Undefined: none runs. */
  #since: Transition[] | undefined;
  /** Grows when the history changed: a count that began before is of no use. */
  #history = 0;
  #countDueAt = 0;
  #isComplete = false;
  #isChanged = false;
  /** Whether the whole state was sent. */
  #isStarted = false;
  #sentRevision = 0n;
  /** When the brake engaged, as the last count saw it: suspects are counted again when that changes. */
  #engagedAt: Micros | null = null;
  #sentBrake: ExpiryBrake | undefined;
  #refusal: Refusal | undefined;
  #failure: { readonly error: unknown } | undefined;
  #endWait: (() => void) | undefined;
  readonly #wake = () => this.#endWait?.();

  constructor(options: FleetWatchOptions) {
    this.#options = options;
    this.#position = options.position;
    this.#counts = new FleetCounts(predicateOf(options.query.filter));
    this.#endsAt = performance.now() + options.maxAgeMs * (0.75 + Math.random() / 2);
    options.signal.addEventListener("abort", this.#wake);
  }

  // ------------------------------------------------------------------ the feed's side

  onTransitions(transitions: readonly Transition[], position: bigint): void {
    this.#position = position;
    this.#since?.push(...transitions);
    for (const transition of transitions) this.#apply(transition);
    if (this.#isChanged) this.#wake();
  }

  /** The history changed: what transitions said may be lost. `position`: the feed goes on from there. */
  countAgain(position = this.#position): void {
    this.#position = position;
    this.#history += 1;
    this.#countDueAt = 0;
    this.#wake();
  }

  /** Ends the watch with an error. */
  end(refusal: Refusal): void {
    this.#refusal ??= refusal;
    this.#wake();
  }

  close(): void {
    this.#options.signal.removeEventListener("abort", this.#wake);
    this.#wake();
  }

  #apply(transition: Transition): void {
    if (transition.revision > this.#countedAt && this.#counts.apply(transition)) this.#isChanged = true;
  }

  // ---------------------------------------------------------------- the stream's side

  async *messages(): AsyncGenerator<FleetWatchMessage, void> {
    const { signal, query, messageEveryMs, brake } = this.#options;
    let sentAt = Number.NEGATIVE_INFINITY;
    while (!signal.aborted) {
      if (this.#refusal !== undefined) throw this.#refusal;
      if (this.#failure !== undefined) throw this.#failure.error;
      const now = performance.now();
      if (brake().engagedAt !== this.#engagedAt) this.#countDueAt = Math.min(this.#countDueAt, now);
      if (now >= this.#countDueAt && this.#since === undefined) void this.#count();
      if (!this.#isComplete) {
        await this.#wait(now + LOOK_EVERY_MS);
        continue;
      }
      if (now >= this.#endsAt && this.#isStarted) throw watchTooOld();
      const isChanged = this.#isChanged || !this.#isStarted || !isSameBrake(brake(), this.#sentBrake);
      // The first messages have the whole state. They do not wait for each other.
      const dueAt = !this.#isStarted ? now : sentAt + (isChanged ? messageEveryMs : query.bookmarkMs);
      if (now < dueAt) {
        await this.#wait(Math.min(dueAt, now + LOOK_EVERY_MS, this.#endsAt, this.#countDueAt));
        continue;
      }
      sentAt = now;
      yield this.#message();
    }
  }

  #message(): FleetWatchMessage {
    const claws = this.#counts.takeChanged(MESSAGE_CLAWS);
    this.#isChanged = this.#counts.changed > 0;
    if (!this.#isChanged) {
      this.#isStarted = true;
      this.#sentRevision = this.#position > this.#countedAt ? this.#position : this.#countedAt;
    }
    this.#sentBrake = this.#options.brake();
    return { revision: this.#sentRevision, all: this.#counts.all, claws, brake: this.#sentBrake };
  }

  /** Waits until something may have happened, or it is `until` (by `performance.now()`). */
  #wait(until: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.#wake(), Math.max(1, until - performance.now()));
      this.#endWait = () => {
        clearTimeout(timer);
        this.#endWait = undefined;
        resolve();
      };
    });
  }

  // --------------------------------------------------------------- the count of all agents

  async #count(): Promise<void> {
    const { brake, suspectsEveryMs, count } = this.#options;
    this.#engagedAt = brake().engagedAt;
    const history = this.#history;
    const since: Transition[] = [];
    this.#since = since;
    const begun = performance.now();
    try {
      const fleet = await count();
      this.#backoff.reset();
      const now = performance.now();
      const engaged = fleet.brake?.engagedAt ?? this.#engagedAt;
      // Suspicion begins and ends without a transition.
      const pauseMs = Math.max(suspectsEveryMs, (now - begun) / SUSPECTS_SHARE);
      this.#countDueAt = engaged === null ? Number.POSITIVE_INFINITY : now + pauseMs;
      this.#since = undefined;
      if (history !== this.#history) {
        this.#countDueAt = 0;
        return;
      }
      this.#countedAt = fleet.revision;
      this.#counts.replace(fleet);
      for (const transition of since) this.#apply(transition);
      this.#isComplete = true;
      this.#isChanged = this.#counts.changed > 0;
    } catch (error) {
      this.#since = undefined;
      // A watch that has the state goes on with it, as long as the database is away.
      if (!this.#isComplete || isPermanent(failureKind(error))) this.#failure = { error };
      this.#countDueAt = performance.now() + this.#backoff.next();
    } finally {
      this.#wake();
    }
  }
}

function isSameBrake(one: ExpiryBrake, other: ExpiryBrake | undefined): boolean {
  return other !== undefined && one.engagedAt === other.engagedAt && one.heldBack === other.heldBack;
}
