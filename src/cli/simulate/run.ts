import { type FleetPace, readPace } from "../../client/agent-calls.ts";
import { CallError } from "../../client/call-error.ts";
import { pause } from "../../client/retry-pause.ts";
import type { ServiceClients } from "../../client/service-clients.ts";
import { createServiceClients } from "../../client/transport.ts";
import { watchThrough } from "../../client/watch-agents.ts";
import { runCalendar } from "./calendar.ts";
import type { ClawNews } from "./claw-messages.ts";
import { ClawSeat } from "./claw-seat.ts";
import { runDrill } from "./drill.ts";
import { enrol, planFleet } from "./enrolment.ts";
import { Fleet, sizeOf } from "./fleet.ts";
import type { DemoOptions } from "./options.ts";
import type { Output } from "./output.ts";
import { createRandom, seedFor } from "./random.ts";
import type { DemoView } from "./view.ts";

const DRAW_EVERY_MS = 100;
/** How long after the goodbyes the watch may take to tell of them. */
const LAST_NEWS_MS = 2_000;
const RESTART_AFTER_MS = 2_000;

/** The demo cannot go on; the message says why, to people. */
export class DemoError extends Error {
  override readonly name = "DemoError";
}

export interface DemoRun {
  readonly options: DemoOptions;
  readonly output: Output;
  /** Ends the demo, with goodbyes. */
  readonly stop: AbortSignal;
  /** Ends it at once, without. */
  readonly hurry: AbortSignal;
}

/**
 * Runs the demo until its time is over or it is stopped. When this returns, no process of it is left.
 *
 * @throws DemoError when it cannot begin or cannot go on.
 */
export async function runDemo(run: DemoRun): Promise<void> {
  const { options, output, stop } = run;
  using clients = createServiceClients(options);
  const plans = planFleet(options.agents);
  let pace: FleetPace;
  try {
    pace = await readPace(clients, stop);
    await enrol(clients, plans, stop);
  } catch (error) {
    if (stop.aborted) return;
    throw new DemoError(cannotBegin(error, options.address));
  }
  const demo = new Demo(run, clients, pace);
  try {
    await demo.run();
  } finally {
    await demo.end();
    output.close(demo.view());
  }
}

function cannotBegin(error: unknown, address: string): string {
  if (!(error instanceof CallError)) throw error;
  // Who refuses for a reason of the contract is the service, and says itself what is wrong.
  if (error.reason !== undefined) return `The service at ${address} cannot serve the demo: ${error.message}`;
  if (error.code === "UNAVAILABLE" || error.code === "DEADLINE_EXCEEDED") {
    return `No service can be reached at ${address}: start one with "npm start", or name another address with --address.`;
  }
  return `What answers at ${address} is not the gRPC door of this service (${error.message}): name another address with --address.`;
}

class Demo {
  readonly #run: DemoRun;
  readonly #clients: ServiceClients;
  readonly #pace: FleetPace;
  readonly #fleet = new Fleet();
  readonly #seats: readonly ClawSeat[];
  readonly #startedAt = performance.now();
  /** Ends what works: the calendar, the drill. */
  readonly #work = new AbortController();
  /** Ends what shows. */
  readonly #watch = new AbortController();
  readonly #failure = Promise.withResolvers<never>();
  readonly #superseded = new Set<string>();
  readonly #refused = new Map<string, number>();
  readonly #ready = Promise.withResolvers<void>();
  #claimed = 0;
  #newestNote = "";
  #cutOff: string | undefined;
  #notice: (() => string) | undefined;
  #working: Promise<unknown> = Promise.resolve();
  #watching: Promise<unknown> = Promise.resolve();
  #drawing: NodeJS.Timeout | undefined;

  constructor(run: DemoRun, clients: ServiceClients, pace: FleetPace) {
    const { address, agents, seed, speed } = run.options;
    this.#run = run;
    this.#clients = clients;
    this.#pace = pace;
    const plans = planFleet(agents);
    this.#seats = plans.map(
      (plan, index) =>
        new ClawSeat({
          ...plan,
          address,
          seed,
          speed,
          emptyAccount: index === 0 ? (plan.agentIds.at(-1) ?? "") : "",
          onNews: (seat, news) => this.#onNews(seat, news),
          onEnded: (seat, words) => void this.#onEnded(seat, words),
        }),
    );
    this.#failure.promise.catch(() => undefined);
  }

  /** Until its time is over or it is stopped. */
  async run(): Promise<void> {
    const { options, output, stop } = this.#run;
    const { seed, speed, durationMs } = options;
    this.#drawing = setInterval(() => output.show(this.view()), DRAW_EVERY_MS);
    this.#watching = this.#follow().catch((error: unknown) => this.#fail(error));
    const over = aborted(stop);
    await Promise.race([this.#ready.promise, over, this.#failure.promise]);
    if (stop.aborted) return;

    for (const seat of this.#seats) {
      this.#note(`${seat.name} starts with ${seat.agentIds.length} agents (process ${seat.start()})`);
    }
    const calendar = runCalendar(
      {
        clients: this.#clients,
        random: createRandom(seedFor(seed, "calendar")),
        speed,
        agents: () => this.#fleet.agents,
        onClaimed: () => {
          this.#claimed += 1;
        },
        onRefused: (reason) => {
          this.#refused.set(reason, (this.#refused.get(reason) ?? 0) + 1);
        },
      },
      this.#work.signal,
    );
    const drill = runDrill(
      {
        seats: this.#seats,
        fleet: this.#fleet,
        pace: this.#pace,
        speed,
        note: (sentence) => this.#note(sentence),
        notice: (now) => {
          this.#notice = now;
        },
      },
      this.#work.signal,
    );
    this.#working = Promise.all([calendar, drill]).catch((error: unknown) => this.#fail(error));
    const timeIsOver = durationMs === undefined ? [] : [pause(durationMs, this.#work.signal)];
    await Promise.race([over, this.#failure.promise, ...timeIsOver]);
  }

  /** Ends everything, with goodbyes where there is time for them. */
  async end(): Promise<void> {
    const { hurry } = this.#run;
    this.#work.abort();
    this.#notice = () => "The demo ends: its agents say goodbye.";
    // First of all, since it could be starting a claw at this moment.
    await this.#working;
    const killed = this.#seats.filter((seat) => !seat.runs);
    await Promise.all(this.#seats.map((seat) => seat.stop(hurry)));
    const present = this.#seats.filter((seat) => !killed.includes(seat));
    const saidGoodbye = (): boolean => present.every(({ name }) => this.#isOffline(name));
    const deadline = performance.now() + LAST_NEWS_MS;
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

  view(): DemoView {
    const fleet = this.#fleet;
    return {
      address: this.#run.options.address,
      elapsedMs: performance.now() - this.#startedAt,
      now: Date.now(),
      pace: this.#pace,
      claws: this.#seats.map(({ name, doing }) => ({ name, doing, tally: fleet.tally(name) })),
      all: fleet.tally(),
      claimed: this.#claimed,
      refused: this.#refused,
      totals: fleet.totals,
      notice: this.#cutOff ?? this.#notice?.(),
      note: this.#newestNote,
      exhausted: fleet.agents.filter(({ exhaustion }) => exhaustion !== undefined),
      newest: fleet.newest,
    };
  }

  async #follow(): Promise<void> {
    const { output } = this.#run;
    const filter = { agentIds: this.#seats.flatMap(({ agentIds }) => agentIds) };
    for await (const event of watchThrough(this.#clients, { filter, signal: this.#watch.signal })) {
      for (const transition of this.#fleet.apply(event)) output.transition(transition);
      if (event.kind === "snapshot") this.#ready.resolve();
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

  #onNews(seat: ClawSeat, news: ClawNews): void {
    if (news.kind === "failed") this.#fail(new DemoError(`${seat.name} cannot go on: ${news.reason}`));
    if (news.kind !== "refused") return;
    if (news.reason === "REPORT_OUTDATED") return;
    this.#note(`${seat.name}: the service refuses beats of ${news.agentId} (${news.reason})`);
    if (news.reason !== "SESSION_SUPERSEDED") return;
    this.#superseded.add(news.agentId);
    // One may have been taken over by somebody who tries something; all of a claw are when a second demo runs.
    if (seat.agentIds.every((agentId) => this.#superseded.has(agentId))) {
      this.#fail(new DemoError(`Another process beats for the agents of ${seat.name} now: does a second demo run?`));
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

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}
