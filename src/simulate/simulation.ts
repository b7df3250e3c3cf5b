import type { AgentView, CallError, TransitionView } from "harborforge-agents-client";
import { watchThrough } from "harborforge-agents-client/internal";
import { pause } from "../../common/scheduling/timers.ts";
import { CommandFailure } from "../cli/call-failure.ts";
import type { Caller } from "../cli/calls/service-calls.ts";
import { EXIT_CONFLICT } from "../cli/exit-codes.ts";
import { counted } from "../cli/terminal/counted.ts";
import { printable } from "../cli/terminal/printable.ts";
import { runCalendar } from "./calendar.ts";
import type { ClawEvent, ClawTarget } from "./claw-messages.ts";
import { ClawSeat } from "./claw-seat.ts";
import { runFaultInjection } from "./fault-injection.ts";
import { firstPace } from "./first-pace.ts";
import { type ClawPlan, planFleet } from "./fleet-plan.ts";
import { FleetTally, sizeOf } from "./fleet-tally.ts";
import { processText, spanOf } from "./format.ts";
import { deleteFleet, ensureFleet } from "./registration.ts";
import { createRandom, type Random, seedFor } from "./seeded-random.ts";
import type { FleetPace } from "./service-calls.ts";
import type { SimulationOutput } from "./simulation-output.ts";
import type { SimulationView } from "./view.ts";

export interface SimulationOptions {
  /** The prefix of the names of claws, agents and users. */
  readonly names: string;
  readonly claws: number;
  /** The number of agents on all claws together. */
  readonly agents: number;
  /** Undefined: until an interrupt. */
  readonly durationMs: number | undefined;
  readonly seed: number;
  /** The speed of agents and faults; 1 is real time. Leases are the server's and do not change. */
  readonly speed: number;
  /** The share of work that ends at the provider's rate limit, 0 to 1. */
  readonly rateLimitShare: number;
  /** The number of agents whose account runs empty once. */
  readonly emptyAccounts: number;
  /** Whether each claw is a process of its own. */
  readonly forked: boolean;
  /** Whether claws are killed and restarted. */
  readonly faults: boolean;
  /** Whether a calendar claims agents. */
  readonly calendar: boolean;
  /** Whether users and agents are deleted at the end. */
  readonly cleanUp: boolean;
}

export interface SimulationRun {
  readonly options: SimulationOptions;
  readonly caller: Caller;
  /** The target of the claws, which have connections of their own. */
  readonly target: ClawTarget;
  /** The tokens of the claws by name, if they differ from the watcher's. */
  readonly clawTokens: ReadonlyMap<string, string>;
  readonly output: SimulationOutput;
  /** How long to wait for a service that does not answer yet, in milliseconds. */
  readonly waitMs: number;
  /** Called once if the simulation waits. */
  onWaiting(error: CallError): void;
  /** Reports the progress of a long step. */
  onProgress(what: string, done: number, of: number): void;
  /** Stops the simulation with goodbyes. */
  readonly stop: AbortSignal;
  /** Stops it at once, without goodbyes. */
  readonly hurry: AbortSignal;
}

const DRAW_EVERY_MS = 100;
/** How long the watch may take to report the goodbyes, in milliseconds: a fixed part, and a part for each agent. */
const LAST_CHANGES_MS = 2_000;
const LAST_CHANGES_MS_PER_AGENT = 2;
const RESTART_AFTER_MS = 2_000;
/** How late the watch may report that a lease expired, in milliseconds. */
const LATE_CHANGE_MS = 10_000;

/**
 * Runs a simulation until its duration ends or it is stopped. Afterwards none of its processes is left.
 *
 * @returns the final state; undefined if it was stopped before it began
 * @throws CallError if it cannot start, CommandFailure if it cannot continue
 */
export async function runSimulation(run: SimulationRun): Promise<SimulationView | undefined> {
  const { options, output, stop, onProgress } = run;
  const caller = { ...run.caller, signal: stop };
  const plans = planFleet(options.names, options.claws, options.agents);
  let pace: FleetPace;
  try {
    pace = await firstPace(run);
    await ensureFleet(caller, plans, (done) => onProgress("Creating users and agents", done, options.agents));
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
    const remaining = simulation.agents;
    await deleteFleet({ ...run.caller, signal: run.hurry }, remaining, (done) =>
      onProgress("Deleting users and agents", done, remaining.length),
    );
  }
  return simulation.view();
}

class Simulation {
  readonly #run: SimulationRun;
  readonly #pace: FleetPace;
  readonly #fleet: FleetTally;
  readonly #seats: readonly ClawSeat[];
  readonly #startedAt = performance.now();
  /** Stops the calendar and the fault injection. */
  readonly #work = new AbortController();
  /** Stops the watch. */
  readonly #watch = new AbortController();
  readonly #failure = Promise.withResolvers<never>();
  readonly #superseded = new Set<string>();
  readonly #refused = new Map<string, number>();
  readonly #refusedBeats = new Map<string, number>();
  readonly #ready = Promise.withResolvers<void>();
  /** Claws that are not started or were killed, until all their agents are back. */
  readonly #down: Set<string>;
  /** Claws whose own outage was noted, until one of their agents is back. */
  readonly #inOutage = new Set<string>();
  #killed = 0;
  #lostAlive = 0;
  #lostInOutage = 0;
  #began: bigint | undefined;
  #revision = 0n;
  #claimed = 0;
  #newestNote = "";
  #disconnected: string | undefined;
  #notice: (() => string) | undefined;
  #working: Promise<unknown> = Promise.resolve();
  #watching: Promise<unknown> = Promise.resolve();
  #drawing: NodeJS.Timeout | undefined;

  constructor(run: SimulationRun, plans: readonly ClawPlan[], pace: FleetPace) {
    const { seed, speed, rateLimitShare, forked, emptyAccounts } = run.options;
    this.#run = run;
    this.#pace = pace;
    this.#down = new Set(plans.map(({ name }) => name));
    this.#fleet = new FleetTally(new Set(plans.flatMap(({ agentIds }) => agentIds)));
    // The last agents of the first claws, so that the first agents of the list are usual ones.
    const emptyIds = new Set(plans.flatMap(({ agentIds }) => agentIds.slice(-1)).slice(0, emptyAccounts));
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
          emptyAccounts: agentIds.filter((agentId) => emptyIds.has(agentId)),
          onEvent: (seat, event) => this.#onEvent(seat, event),
          onEnded: (seat, lastOutput) => void this.#onEnded(seat, lastOutput),
        }),
    );
    this.#failure.promise.catch(() => undefined);
  }

  get agents(): readonly AgentView[] {
    return this.#fleet.agents;
  }

  /** Runs until the duration ends or it is stopped. */
  async run(): Promise<void> {
    const { options, output, stop } = this.#run;
    const { seed, speed, durationMs, calendar, faults } = options;
    this.#drawing = setInterval(() => output.show(this.view()), DRAW_EVERY_MS);
    this.#watching = this.#follow().catch((error: unknown) => this.#fail(error));
    const over = aborted(stop);
    await Promise.race([this.#ready.promise, over, this.#failure.promise]);
    if (stop.aborted) return;

    for (const seat of this.#seats) {
      this.#note(`${seat.name} starts with ${counted(seat.agentIds.length, "agent")}${processText(seat.start())}`);
    }
    const work: Promise<void>[] = [];
    if (calendar) work.push(this.#claim(createRandom(seedFor(seed, "calendar")), speed));
    if (faults) work.push(this.#injectFaults(speed));
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

  #injectFaults(speed: number): Promise<void> {
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
    return runFaultInjection(options, this.#work.signal);
  }

  /** Stops everything, with goodbyes if there is time. */
  async end(): Promise<void> {
    const { hurry } = this.#run;
    this.#work.abort();
    this.#notice = () => "Stopping: the agents send goodbyes.";
    // Wait for the fault injection first, which may be starting a claw.
    await this.#working;
    const killed = this.#seats.filter((seat) => !seat.runs);
    await Promise.all(this.#seats.map((seat) => seat.stop(hurry)));
    const present = this.#seats.filter((seat) => !killed.includes(seat));
    const saidGoodbye = (): boolean => present.every(({ name }) => this.#isOffline(name));
    const deadline = performance.now() + LAST_CHANGES_MS + LAST_CHANGES_MS_PER_AGENT * this.#run.options.agents;
    const waits = (): boolean => !hurry.aborted && this.#disconnected === undefined && performance.now() < deadline;
    while (present.length > 0 && !saidGoodbye() && waits()) await pause(20, hurry);
    this.#watch.abort();
    await this.#watching;
    clearInterval(this.#drawing);
    for (const { name } of present) {
      const known = this.#isOffline(name);
      this.#note(`${name} ${known ? "sent its goodbyes and stopped" : "stopped; the service does not know it yet"}`);
    }
  }

  view(): SimulationView {
    const fleet = this.#fleet;
    return {
      address: this.#run.target.addresses.join(", "),
      elapsedMs: performance.now() - this.#startedAt,
      now: Date.now(),
      pace: this.#pace,
      claws: this.#seats.map(({ name, runs, doing }) => ({ name, runs, doing, tally: fleet.tally(name) })),
      all: fleet.tally(),
      claimed: this.#claimed,
      refused: this.#refused,
      refusedBeats: this.#refusedBeats,
      killed: this.#killed,
      lostAlive: this.#lostAlive,
      lostInOutage: this.#lostInOutage,
      revisions: [this.#began ?? 0n, this.#revision],
      totals: fleet.totals,
      notice: this.#disconnected ?? this.#notice?.(),
      note: this.#newestNote,
      exhausted: fleet.agents.filter(({ exhaustion }) => exhaustion !== undefined),
      newest: fleet.newest,
    };
  }

  async #follow(): Promise<void> {
    const filter = { clawIdentifiers: this.#seats.map(({ name }) => name) };
    const { clients } = this.#run.caller;
    for await (const event of watchThrough(clients, { filter, signal: this.#watch.signal })) {
      for (const transition of this.#fleet.apply(event)) this.#observe(transition);
      if (event.kind === "snapshot") this.#ready.resolve();
      if (event.kind !== "interrupted") {
        this.#began ??= event.revision;
        this.#revision = event.revision;
      }
      const wasDisconnected = this.#disconnected !== undefined;
      if (event.kind === "interrupted") {
        const why = event.error?.message.replace(/\.$/, "") ?? "the service ended the stream";
        this.#disconnected = `Watch disconnected: ${why}. Reconnecting.`;
        if (!wasDisconnected) this.#note(this.#disconnected);
      } else if (wasDisconnected) {
        this.#disconnected = undefined;
        this.#note("Watch reconnected.");
      }
    }
  }

  #observe(transition: TransitionView): void {
    const { cause, to, clawIdentifier = "" } = transition;
    if (cause === "lease_expired" && !this.#down.has(clawIdentifier)) this.#countLost(clawIdentifier);
    if (to !== "offline") this.#inOutage.delete(clawIdentifier);
    // Once all its agents are back, expired leases are faults again.
    if (to !== "offline" && cause !== "service") this.#markBack(clawIdentifier);
    this.#run.output.transition(transition);
  }

  /** A lease expired that nobody wanted to expire. A claw that missed a heartbeat by an outage of its own is no fault. */
  #countLost(name: string): void {
    const { intervalMs, leaseMs } = this.#pace;
    const seat = this.#seats.find((one) => one.name === name);
    const outageMs = seat?.outageMs(leaseMs + LATE_CHANGE_MS) ?? 0;
    if (outageMs < intervalMs) {
      this.#lostAlive += 1;
      return;
    }
    this.#lostInOutage += 1;
    if (this.#inOutage.has(name)) return;
    this.#inOutage.add(name);
    this.#note(`${name} did not run or had no network for ${spanOf(outageMs)}: its leases expired`);
  }

  #markBack(name: string): void {
    if (!this.#down.has(name)) return;
    const seat = this.#seats.find((one) => one.name === name);
    if (seat?.runs === true && seat.beats && this.#fleet.tally(name).offline === 0) this.#down.delete(name);
  }

  #onEvent(seat: ClawSeat, event: ClawEvent): void {
    if (event.kind === "failed")
      this.#fail(new CommandFailure(`${seat.name} cannot continue: ${printable(event.reason)}`, event.exitCode));
    if (event.kind !== "refused") return;
    count(this.#refusedBeats, event.reason);
    if (event.reason === "REPORT_OUTDATED") return;
    this.#note(`${seat.name}: the service rejects beats of ${event.agentId} (${event.reason})`);
    if (event.reason !== "SESSION_SUPERSEDED") return;
    this.#superseded.add(event.agentId);
    // Another process may take a single agent. If it takes all agents of a claw, a second simulation is running.
    if (seat.agentIds.every((agentId) => this.#superseded.has(agentId))) {
      this.#fail(
        new CommandFailure(
          `Another process sends heartbeats for the agents of ${seat.name}. If a second simulation is running, use other --names.`,
          EXIT_CONFLICT,
        ),
      );
    }
  }

  async #onEnded(seat: ClawSeat, lastOutput: string): Promise<void> {
    this.#note(`${seat.name} ended unexpectedly${lastOutput === "" ? "" : `: ${lastOutput.replaceAll(/\s+/g, " ")}`}`);
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
