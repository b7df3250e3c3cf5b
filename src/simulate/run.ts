import type { AgentView, TransitionView } from "harborforge-agents-client";
import { watchThrough } from "harborforge-agents-client/internal";
import { CommandFailure } from "../cli/call-failure.ts";
import { type FleetPace, readPace } from "../cli/calls/agent-calls.ts";
import type { Caller } from "../cli/calls/directory-calls.ts";
import { EXIT_CONFLICT } from "../cli/exit-codes.ts";
import { printable } from "../cli/terminal/printable.ts";
import { pause } from "../scheduling/timers.ts";
import { runCalendar } from "./calendar.ts";
import type { ClawNews, ClawTarget } from "./claw-messages.ts";
import { ClawSeat } from "./claw-seat.ts";
import { runDrill } from "./drill.ts";
import { type ClawPlan, dismiss, enrol, planFleet } from "./enrolment.ts";
import type { Output } from "./output.ts";
import { createRandom, type Random, seedFor } from "./random.ts";
import { Fleet, sizeOf } from "./simulated-fleet.ts";
import type { SimulationView } from "./view.ts";
import { processWords } from "./words.ts";

export interface SimulationOptions {
  /** What the names of claws, agents and users begin with. */
  readonly names: string;
  readonly claws: number;
  /** Of all claws together. */
  readonly agents: number;
  /** Undefined: until it is interrupted. */
  readonly durationMs: number | undefined;
  readonly seed: number;
  /** How many times quicker than life agents work and claws are lost. Leases are the server's and stay as they are. */
  readonly speed: number;
  /** How often work ends at the provider's rate limit, from 0 to 1. */
  readonly rateLimitShare: number;
  /** How many agents find their account empty, once. */
  readonly emptyAccounts: number;
  /** Whether each claw is a process of its own. */
  readonly forked: boolean;
  /** Whether claws are killed and come back. */
  readonly faults: boolean;
  /** Whether a calendar claims agents. */
  readonly calendar: boolean;
  /** Whether users and agents are deleted at the end. */
  readonly cleanUp: boolean;
}

export interface SimulationRun {
  readonly options: SimulationOptions;
  readonly caller: Caller;
  /** For the claws, which have connections of their own. */
  readonly target: ClawTarget;
  /** Where claws show other tokens than whoever watches them: by their names. */
  readonly clawTokens: ReadonlyMap<string, string>;
  readonly output: Output;
  /** How far something has come that takes its time. */
  onProgress(what: string, done: number, of: number): void;
  /** Ends the simulation, with goodbyes. */
  readonly stop: AbortSignal;
  /** Ends it at once, without. */
  readonly hurry: AbortSignal;
}

const DRAW_EVERY_MS = 100;
/** How long after the goodbyes the watch may take to tell of them: so much, and more where there are many. */
const LAST_NEWS_MS = 2_000;
const LAST_NEWS_MS_PER_AGENT = 2;
const RESTART_AFTER_MS = 2_000;

/**
 * Runs a simulation until its time is over or it is stopped. When this returns, no process of it is left.
 *
 * @returns what it has come to; undefined when it was stopped before it began
 * @throws CallError when it cannot begin, CommandFailure when it cannot go on
 */
export async function runSimulation(run: SimulationRun): Promise<SimulationView | undefined> {
  const { options, output, stop, onProgress } = run;
  const caller = { ...run.caller, signal: stop };
  const plans = planFleet(options.names, options.claws, options.agents);
  let pace: FleetPace;
  try {
    pace = await readPace(caller.clients, stop);
    await enrol(caller, plans, (done) => onProgress("Users and agents are there", done, options.agents));
  } catch (error) {
    if (stop.aborted) return undefined;
    throw error;
  }
  const simulation = new Simulation(run, plans, pace);
  try {
    await simulation.run();
  } finally {
    await simulation.end();
    output.close(simulation.view());
  }
  if (options.cleanUp) {
    const doomed = simulation.agents;
    await dismiss({ ...run.caller, signal: run.hurry }, doomed, (done) =>
      onProgress("Users and agents are deleted", done, doomed.length),
    );
  }
  return simulation.view();
}

class Simulation {
  readonly #run: SimulationRun;
  readonly #pace: FleetPace;
  readonly #fleet: Fleet;
  readonly #seats: readonly ClawSeat[];
  readonly #startedAt = performance.now();
  /** Ends what works: the calendar, the drill. */
  readonly #work = new AbortController();
  /** Ends what shows. */
  readonly #watch = new AbortController();
  readonly #failure = Promise.withResolvers<never>();
  readonly #superseded = new Set<string>();
  readonly #refused = new Map<string, number>();
  readonly #refusedBeats = new Map<string, number>();
  readonly #ready = Promise.withResolvers<void>();
  /** Claws that have not begun, or were killed, and whose agents are not all back yet. */
  readonly #down: Set<string>;
  #killed = 0;
  #lostAlive = 0;
  #began: bigint | undefined;
  #revision = 0n;
  #claimed = 0;
  #newestNote = "";
  #cutOff: string | undefined;
  #notice: (() => string) | undefined;
  #working: Promise<unknown> = Promise.resolve();
  #watching: Promise<unknown> = Promise.resolve();
  #drawing: NodeJS.Timeout | undefined;

  constructor(run: SimulationRun, plans: readonly ClawPlan[], pace: FleetPace) {
    const { seed, speed, rateLimitShare, forked, emptyAccounts } = run.options;
    this.#run = run;
    this.#pace = pace;
    this.#down = new Set(plans.map(({ name }) => name));
    this.#fleet = new Fleet(new Set(plans.flatMap(({ agentIds }) => agentIds)));
    // The last agents of the first claws, so that they are never those that somebody looks at first.
    const dry = new Set(plans.flatMap(({ agentIds }) => agentIds.slice(-1)).slice(0, emptyAccounts));
    this.#seats = plans.map(
      ({ name, agentIds }) =>
        new ClawSeat({
          name,
          agentIds,
          target: targetFor(run, name),
          forked,
          seed,
          speed,
          rateLimitShare,
          emptyAccounts: agentIds.filter((agentId) => dry.has(agentId)),
          onNews: (seat, news) => this.#onNews(seat, news),
          onEnded: (seat, words) => void this.#onEnded(seat, words),
        }),
    );
    this.#failure.promise.catch(() => undefined);
  }

  get agents(): readonly AgentView[] {
    return this.#fleet.agents;
  }

  /** Until its time is over or it is stopped. */
  async run(): Promise<void> {
    const { options, output, stop } = this.#run;
    const { seed, speed, durationMs, calendar, faults } = options;
    this.#drawing = setInterval(() => output.show(this.view()), DRAW_EVERY_MS);
    this.#watching = this.#follow().catch((error: unknown) => this.#fail(error));
    const over = aborted(stop);
    await Promise.race([this.#ready.promise, over, this.#failure.promise]);
    if (stop.aborted) return;

    for (const seat of this.#seats) {
      this.#note(`${seat.name} starts with ${seat.agentIds.length} agents${processWords(seat.start())}`);
    }
    const work: Promise<void>[] = [];
    if (calendar) work.push(this.#claim(createRandom(seedFor(seed, "calendar")), speed));
    if (faults) work.push(this.#loseClaws(speed));
    this.#working = Promise.all(work).catch((error: unknown) => this.#fail(error));
    const timeIsOver = durationMs === undefined ? [] : [pause(durationMs, this.#work.signal)];
    await Promise.race([over, this.#failure.promise, ...timeIsOver]);
  }

  #claim(random: Random, speed: number): Promise<void> {
    const options = {
      clients: this.#run.caller.clients,
      random,
      speed,
      agentIds: this.#seats.flatMap(({ agentIds }) => agentIds),
      agent: (agentId: string) => this.#fleet.get(agentId),
      onClaimed: () => {
        this.#claimed += 1;
      },
      onRefused: (reason: string) => count(this.#refused, reason),
    };
    return runCalendar(options, this.#work.signal);
  }

  #loseClaws(speed: number): Promise<void> {
    const options = {
      seats: this.#seats,
      fleet: this.#fleet,
      pace: this.#pace,
      speed,
      onLost: ({ name }: ClawSeat) => {
        this.#killed += 1;
        this.#down.add(name);
      },
      note: (sentence: string) => this.#note(sentence),
      notice: (now: (() => string) | undefined) => {
        this.#notice = now;
      },
    };
    return runDrill(options, this.#work.signal);
  }

  /** Ends everything, with goodbyes where there is time for them. */
  async end(): Promise<void> {
    const { hurry } = this.#run;
    this.#work.abort();
    this.#notice = () => "The simulation ends: its agents say goodbye.";
    // First of all, since it could be starting a claw at this moment.
    await this.#working;
    const killed = this.#seats.filter((seat) => !seat.runs);
    await Promise.all(this.#seats.map((seat) => seat.stop(hurry)));
    const present = this.#seats.filter((seat) => !killed.includes(seat));
    const saidGoodbye = (): boolean => present.every(({ name }) => this.#isOffline(name));
    const deadline = performance.now() + LAST_NEWS_MS + LAST_NEWS_MS_PER_AGENT * this.#run.options.agents;
    const waits = (): boolean => !hurry.aborted && this.#cutOff === undefined && performance.now() < deadline;
    while (present.length > 0 && !saidGoodbye() && waits()) await pause(20, hurry);
    this.#watch.abort();
    await this.#watching;
    clearInterval(this.#drawing);
    for (const { name } of present) {
      const known = this.#isOffline(name);
      this.#note(`${name} ${known ? "has said goodbye and ended" : "has ended; the service does not know it yet"}`);
    }
  }

  view(): SimulationView {
    const fleet = this.#fleet;
    return {
      address: this.#run.target.address,
      elapsedMs: performance.now() - this.#startedAt,
      now: Date.now(),
      pace: this.#pace,
      claws: this.#seats.map(({ name, doing }) => ({ name, doing, tally: fleet.tally(name) })),
      all: fleet.tally(),
      claimed: this.#claimed,
      refused: this.#refused,
      refusedBeats: this.#refusedBeats,
      killed: this.#killed,
      lostAlive: this.#lostAlive,
      revisions: [this.#began ?? 0n, this.#revision],
      totals: fleet.totals,
      notice: this.#cutOff ?? this.#notice?.(),
      note: this.#newestNote,
      exhausted: fleet.agents.filter(({ exhaustion }) => exhaustion !== undefined),
      newest: fleet.newest,
    };
  }

  async #follow(): Promise<void> {
    const filter = { clawIdentifiers: this.#seats.map(({ name }) => name) };
    const { clients } = this.#run.caller;
    for await (const event of watchThrough(clients, { filter, signal: this.#watch.signal })) {
      for (const transition of this.#fleet.apply(event)) this.#learn(transition);
      if (event.kind === "snapshot") this.#ready.resolve();
      if (event.kind !== "interrupted") {
        this.#began ??= event.revision;
        this.#revision = event.revision;
      }
      const wasCutOff = this.#cutOff !== undefined;
      if (event.kind === "interrupted") {
        const why = event.error?.message.replace(/\.$/, "") ?? "the service ended it";
        this.#cutOff = `The watch is cut off: ${why}. Trying again.`;
        if (!wasCutOff) this.#note(this.#cutOff);
      } else if (wasCutOff) {
        this.#cutOff = undefined;
        this.#note("The watch goes on.");
      }
    }
  }

  #learn(transition: TransitionView): void {
    const { cause, to, clawIdentifier = "" } = transition;
    if (cause === "lease_expired" && !this.#down.has(clawIdentifier)) this.#lostAlive += 1;
    // From its first agent that is back on, what its agents lose is no longer meant.
    if (to !== "offline" && cause !== "service") this.#backUp(clawIdentifier);
    this.#run.output.transition(transition);
  }

  #backUp(name: string): void {
    if (!this.#down.has(name)) return;
    const seat = this.#seats.find((one) => one.name === name);
    if (seat?.runs === true && seat.beats && this.#fleet.tally(name).offline === 0) this.#down.delete(name);
  }

  #onNews(seat: ClawSeat, news: ClawNews): void {
    if (news.kind === "failed")
      this.#fail(new CommandFailure(`${seat.name} cannot go on: ${printable(news.reason)}`, news.exitCode));
    if (news.kind !== "refused") return;
    count(this.#refusedBeats, news.reason);
    if (news.reason === "REPORT_OUTDATED") return;
    this.#note(`${seat.name}: the service refuses beats of ${news.agentId} (${news.reason})`);
    if (news.reason !== "SESSION_SUPERSEDED") return;
    this.#superseded.add(news.agentId);
    // One may have been taken over by somebody who tries something; all of a claw are when a second demo runs.
    if (seat.agentIds.every((agentId) => this.#superseded.has(agentId))) {
      this.#fail(
        new CommandFailure(
          `Another process beats for the agents of ${seat.name} now: does a second simulation run? Give it other --names.`,
          EXIT_CONFLICT,
        ),
      );
    }
  }

  async #onEnded(seat: ClawSeat, words: string): Promise<void> {
    this.#note(`${seat.name} ended by itself${words === "" ? "" : `: ${words.replaceAll(/\s+/g, " ")}`}`);
    await pause(RESTART_AFTER_MS, this.#work.signal);
    if (!this.#work.signal.aborted && !seat.runs) seat.start();
  }

  #isOffline(name: string): boolean {
    const tally = this.#fleet.tally(name);
    return tally.offline === sizeOf(tally);
  }

  #note(sentence: string): void {
    this.#newestNote = sentence;
    this.#run.output.note(sentence);
  }

  #fail(error: unknown): void {
    this.#failure.reject(error);
  }
}

function targetFor({ target, clawTokens }: SimulationRun, name: string): ClawTarget {
  const token = clawTokens.get(name);
  return token === undefined ? target : { ...target, token };
}

function count(counts: Map<string, number>, what: string): void {
  counts.set(what, (counts.get(what) ?? 0) + 1);
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}
