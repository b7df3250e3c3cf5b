import type { Refusal, Signal } from "./signal.ts";

/** The status of an agent, as its gateway shows it. */
export type ShownStatus =
  | { readonly status: "idle" | "busy" | "on_call" }
  | ({ readonly status: "exhausted" } & Refusal);

/** How far an agent's runs are. The service's Progress will take it: `step` only grows. */
export interface ShownProgress {
  readonly step: number;
  /** How soon the next step is due, in milliseconds: longer while a tool runs, since tools report nothing. */
  readonly nextWithinMs: number;
}

export interface ActivityLimits {
  /** A run without an event for this long does not count any more, in milliseconds. */
  readonly silentRunMs: number;
  /** How long a call lasts after its last turn, in milliseconds. */
  readonly callEndMs: number;
}

interface Run {
  readonly isVoice: boolean;
  /** When it last showed a sign of life. */
  seenAt: number;
  inTool: boolean;
  /** The gateway has taken the work, and shown nothing of it since. */
  isOnlyTaken: boolean;
  /** The end of the gateway's wait for the provider. */
  waitsUntil: number | undefined;
  /** What providers said in this run. */
  readonly refusals: Refusal[];
}

/** A shorter wait for the provider is part of the work. */
const LONG_WAIT_MS = 15_000;
/** A tool reports nothing while it runs, so a run in a tool may be silent for so many times longer. */
const TOOL_FACTOR = 6;
/** A cold start took half a minute on a loaded machine. Work that has not begun by then was refused. */
const TAKEN_MS = 600_000;
const MOST_RUNS = 1_000;
const MOST_ENDED_RUNS = 200;
const MOST_REFUSALS = 20;
const NEXT_STEP_MS = 120_000;

/**
 * What one agent does, from the signals of its runs. All instants are milliseconds since 1970. Memory is bounded: signals that
 * never end a run leave at most 1,000 of them.
 */
export class AgentActivity {
  limits: ActivityLimits;
  readonly #runs = new Map<string, Run>();
  /** Late events of these do not bring them back. */
  readonly #ended = new Set<string>();
  #exhaustion: Refusal | undefined;
  #callEndsAt = 0;
  #step = 0;
  #lastRefusal: (Refusal & { readonly at: number }) | undefined;

  constructor(limits: ActivityLimits) {
    this.limits = limits;
  }

  /** The newest refusal of a provider, for people. */
  get lastRefusal(): (Refusal & { readonly at: number }) | undefined {
    return this.#lastRefusal;
  }

  get progress(): ShownProgress {
    const isInTool = [...this.#runs.values()].some(({ inTool }) => inTool);
    return { step: this.#step, nextWithinMs: NEXT_STEP_MS * (isInTool ? TOOL_FACTOR : 1) };
  }

  /** How many runs count now. */
  runsAt(now: number): number {
    return this.#liveRuns(now).length;
  }

  /** @param accounts reads the exhaustion of the agent's accounts; called when a run failed */
  apply(signal: Signal, now: number, accounts: () => Refusal | undefined): void {
    const { runId, kind } = signal;
    if (kind === "ended") {
      this.#end(runId, signal, now, accounts);
      return;
    }
    if (kind === "taken" || kind === "started") this.#ended.delete(runId);
    const opens = kind !== "refused" && !(kind === "progress" && signal.isCall === true);
    const run = this.#runs.get(runId) ?? (opens ? this.#open(signal, now) : undefined);
    if (kind === "refused") this.#note(signal.refusal, now);
    if (run === undefined) return;
    run.seenAt = now;
    run.isOnlyTaken = run.isOnlyTaken && kind === "taken";
    switch (kind) {
      case "taken":
        return;
      case "started":
        run.waitsUntil = undefined;
        return;
      case "progress":
        this.#step += 1;
        run.inTool = signal.inTool ?? (run.inTool && !signal.works);
        if (signal.works) {
          run.waitsUntil = undefined;
          run.refusals.length = 0;
          this.#exhaustion = undefined;
        }
        return;
      case "refused":
        if (run.refusals.length < MOST_REFUSALS) run.refusals.push(signal.refusal);
        return;
      case "waiting":
        // The wait is not silence.
        run.seenAt = Math.max(now, signal.until);
        run.waitsUntil = signal.isExhaustion && signal.until - now >= LONG_WAIT_MS ? signal.until : undefined;
    }
  }

  /** The service recovered the agent. Matters for an exhaustion whose end only the service knows. */
  recovered(): void {
    if (this.#exhaustion?.until === undefined) this.#exhaustion = undefined;
  }

  statusAt(now: number): ShownStatus {
    const { until } = this.#exhaustion ?? {};
    if (until !== undefined && until <= now) this.#exhaustion = undefined;
    if (this.#exhaustion !== undefined) return { status: "exhausted", ...this.#exhaustion };
    const runs = this.#liveRuns(now);
    if (runs.some(({ isVoice }) => isVoice) || this.#callEndsAt > now) return { status: "on_call" };
    if (runs.length === 0) return { status: "idle" };
    const waits = runs.map(({ waitsUntil = 0 }) => waitsUntil);
    const next = Math.min(...waits);
    if (next <= now) return { status: "busy" };
    return { status: "exhausted", ...waitOf(runs.find(({ waitsUntil }) => waitsUntil === next)?.refusals ?? [], next) };
  }

  /** Forgets runs that were silent for too long; their next event opens them again. @returns their ids */
  dropSilent(now: number): string[] {
    const silent = [...this.#runs].filter(([, run]) => !this.#isLive(run, now)).map(([runId]) => runId);
    for (const runId of silent) this.#runs.delete(runId);
    return silent;
  }

  #liveRuns(now: number): Run[] {
    return [...this.#runs.values()].filter((run) => this.#isLive(run, now));
  }

  #isLive({ seenAt, inTool, isOnlyTaken }: Run, now: number): boolean {
    const { silentRunMs } = this.limits;
    const limitMs = isOnlyTaken ? Math.min(TAKEN_MS, silentRunMs) : silentRunMs * (inTool ? TOOL_FACTOR : 1);
    return now - seenAt <= limitMs;
  }

  /** @returns undefined for a run that is over: its last events may come late */
  #open({ runId, isVoice }: Signal, now: number): Run | undefined {
    if (this.#ended.has(runId)) return undefined;
    const run: Run = { isVoice, seenAt: now, inTool: false, isOnlyTaken: true, waitsUntil: undefined, refusals: [] };
    this.#runs.set(runId, run);
    dropOldest(this.#runs, MOST_RUNS);
    return run;
  }

  #end(
    runId: string,
    { succeeded, refusal, isVoice }: Extract<Signal, { kind: "ended" }>,
    now: number,
    accounts: () => Refusal | undefined,
  ): void {
    const run = this.#runs.get(runId);
    this.#runs.delete(runId);
    this.#ended.add(runId);
    dropOldest(this.#ended, MOST_ENDED_RUNS);
    this.#step += 1;
    if (isVoice) this.#callEndsAt = now + this.limits.callEndMs;
    if (succeeded) {
      this.#exhaustion = undefined;
      return;
    }
    const found = exhaustionAfter(run, refusal, accounts, now);
    if (found === undefined) return;
    this.#exhaustion = found;
    this.#note(found, now);
  }

  #note(refusal: Refusal, now: number): void {
    this.#lastRefusal = { ...refusal, at: now };
  }
}

/** Why a run that failed may show an exhaustion. */
function exhaustionAfter(
  run: Run | undefined,
  refusal: Refusal | undefined,
  accounts: () => Refusal | undefined,
  now: number,
): Refusal | undefined {
  const { refusals = [], waitsUntil } = run ?? {};
  if (refusal !== undefined) return exhaustionOf([...refusals, refusal], accounts, now);
  // Given up by its caller during a long wait for the provider, which still refuses.
  if (waitsUntil !== undefined && waitsUntil > now) return waitOf(refusals, waitsUntil);
  // The gateway refuses a run without a call while the accounts are disabled.
  return accounts();
}

function waitOf(refusals: readonly Refusal[], until: number): Refusal {
  return { reason: refusals.at(-1)?.reason ?? "rate_limit", until, evidence: "gateway: retries" };
}

/** The agent works again when the first of its accounts and models does. */
function exhaustionOf(
  refusals: readonly Refusal[],
  accounts: () => Refusal | undefined,
  now: number,
): Refusal | undefined {
  const dated = refusals.filter(({ until }) => until !== undefined && until > now);
  const first = dated.sort((one, other) => (one.until ?? 0) - (other.until ?? 0))[0];
  return first ?? accounts() ?? refusals.at(-1);
}

function dropOldest(
  keyed: { readonly size: number; keys(): Iterator<string>; delete(key: string): boolean },
  most: number,
): void {
  if (keyed.size <= most) return;
  const oldest = keyed.keys().next();
  if (oldest.done !== true) keyed.delete(oldest.value);
}
