import { setTimeout as sleep } from "node:timers/promises";
import type { Agent, Transition } from "../domain/agent.ts";
import type { ExpiryBrake } from "../domain/directory.ts";
import type { BeatResult, ParsedBeat } from "../domain/heartbeat.ts";
import type { Pace, PaceLimits } from "../domain/lease.ts";
import type { Committer } from "../storage/committer.ts";
import type { Database } from "../storage/database.ts";
import { cutOffFromDatabase } from "../storage/failures.ts";
import { releaseAgents, releaseForgotten } from "../storage/lease-queries.ts";
import { retryRead } from "../storage/retries.ts";
import { BeatIntake } from "./beat-intake.ts";
import { BrakeWatch } from "./brake-watch.ts";
import { Claims } from "./claims.ts";
import { FleetPace } from "./fleet-pace.ts";
import type { HeldAgent } from "./held-agent.ts";
import type { Logger } from "./logger.ts";
import { hearingFor, Membership } from "./membership.ts";
import { Reaper } from "./reaper.ts";
import { Recovery } from "./recovery.ts";
import { Registry } from "./registry.ts";
import { Session, type SessionContext, type SessionListener, type SessionOptions } from "./session.ts";
import { UnaryBeats, type UnaryOptions } from "./unary-beats.ts";

/** How long what waits may take to be written when the replica stops, in milliseconds. */
const DRAIN_MS = 2_000;
const POLL_MS = 20;
/**
 * Streams whose agents this replica has not claimed are nobody's to give time to: they go elsewhere within so much of an
 * interval, where those whose agents it holds have all of it.
 */
const UNCLAIMED_SHARE = 1 / 4;
/** A stream that is refused may come again after so much of an interval, in the hope of another replica. */
const REFUSED_SHARE = 1 / 10;
/** Releases of streams that end together share a statement. */
const RELEASE_MS = 50;
const RELEASED_AT_ONCE = 1_000;

interface Release {
  readonly id: bigint;
  readonly epoch: bigint;
}

export interface LivenessOptions {
  readonly database: Database;
  readonly committer: Committer;
  readonly replica: number;
  readonly pace: PaceLimits;
  readonly log: Logger;
  /** This replica can no longer write, so that heartbeats are better heard elsewhere; and it can again. */
  onCutOff?(): void;
  onBack?(): void;
}

/** Sessions, leases and recovery of one replica. */
export class Liveness {
  readonly #database: Database;
  readonly #replica: number;
  readonly #log: Logger;
  readonly #registry: Registry;
  readonly #intake: BeatIntake;
  readonly #claims: Claims;
  readonly #unary: UnaryBeats;
  readonly #pace: FleetPace;
  readonly #reaper: Reaper;
  readonly #recovery: Recovery;
  readonly #membership: Membership;
  readonly #brake: BrakeWatch;
  readonly #context: SessionContext;
  readonly #sessions = new Set<Session>();
  #news: Session[] = [];
  #releases: Release[] = [];
  /** By `performance.now()`. */
  #releaseUntil = Number.POSITIVE_INFINITY;
  #releaseTimer: NodeJS.Timeout | undefined;
  #releasing: Promise<void> = Promise.resolve();

  constructor(options: LivenessOptions) {
    const { database, replica, log } = options;
    this.#database = database;
    this.#replica = replica;
    this.#log = log;
    this.#registry = new Registry(database.clock.now());
    const shared = { ...options, registry: this.#registry };
    this.#intake = new BeatIntake(shared);
    this.#claims = new Claims({
      database,
      replica,
      log,
      isHeldHere: (agent) => this.#registry.get(agent.agentId)?.holder?.epoch === agent.epoch,
      isAwake: () => this.#membership.awake,
      leaseMs: () => this.#pace.current.leaseMs,
    });
    this.#unary = new UnaryBeats(this.#registry, this.#intake);
    this.#pace = new FleetPace({ database, limits: options.pace, log });
    this.#membership = new Membership({
      ...options,
      hearing: () => hearingFor(this.#pace.current),
      stuckMs: () => Math.max(this.#intake.stuckMs, this.#claims.stuckMs, options.committer.stuckMs),
      onAdopted: (leases, noneBefore) => this.#reaper.watch(leases, noneBefore),
      onCutOff: () => {
        this.#cutOff();
        options.onCutOff?.();
      },
      onBack: () => options.onBack?.(),
    });
    this.#reaper = new Reaper({
      ...shared,
      watches: (other) => this.#membership.watches(other),
      hears: (entry) => entry.busy || this.#claims.isWaitingFor(entry.agentId),
    });
    this.#recovery = new Recovery(options);
    this.#brake = new BrakeWatch({ database, log, onReleased: () => this.#reaper.released() });
    this.#context = {
      registry: this.#registry,
      intake: this.#intake,
      claims: this.#claims,
      leaseMs: () => this.#pace.current.leaseMs,
      firstIntervalMs: () => this.#pace.first(),
      isWatchedElsewhere: (agent) =>
        agent !== undefined && !agent.held && agent.replicaId !== null && agent.replicaId !== replica,
      sendElsewhere: (session) => {
        if (this.#membership.cutOff) this.#sendElsewhere(session);
      },
      release: (held) => this.#release(held),
      announce: (session) => this.#announce(session),
      onClosed: (session) => this.#sessions.delete(session),
    };
  }

  /** Resolves when it is known how often agents are to be heard. Streams are better opened after that. */
  start(): Promise<void> {
    this.#membership.start();
    this.#reaper.start();
    this.#recovery.start();
    this.#brake.start();
    return this.#pace.start();
  }

  /** As it was a second ago. */
  get brake(): ExpiryBrake {
    return this.#brake.brake;
  }

  pace(): Pace {
    return this.#pace.announced();
  }

  /** How many streams are open, and how many agents this replica keeps an eye on. */
  statistics(): { readonly sessions: number; readonly agents: number; readonly silentClaws: number } {
    return { sessions: this.#sessions.size, agents: this.#registry.size, silentClaws: this.#reaper.silentClaws };
  }

  /**
   * @throws Refusal `DATABASE_UNAVAILABLE` while this replica is cut off from the database: it could not claim the agents,
   * so nobody would know that they are heard here
   */
  openSession(options: SessionOptions, listener: SessionListener): Session {
    if (this.#membership.cutOff) throw cutOffFromDatabase(this.#pace.current.intervalMs * REFUSED_SHARE);
    const session = new Session(this.#context, options, listener);
    this.#sessions.add(session);
    return session;
  }

  beat(beats: readonly ParsedBeat[], options: UnaryOptions): Promise<readonly BeatResult[]> {
    return this.#unary.beat(beats, options);
  }

  /** This replica made an agent, so it watches its first lease. */
  created(agent: Agent): void {
    this.#registry.learn(this.#registry.open(agent.id, agent.agentId), agent);
  }

  /** The log of transitions, whoever made them, in order. */
  changed(transition: Transition): void {
    const entry = this.#registry.get(transition.agentId);
    if (entry?.id === transition.id) entry.hear(transition);
    this.#reaper.changed(transition);
    this.#recovery.changed(transition);
  }

  /** A part of the log was lost: every agent is read anew, and every stream told of its agents with their next beats. */
  restarted(): void {
    for (const entry of this.#registry.entries()) {
      entry.agent = undefined;
      if (entry.holder !== undefined) entry.holder.introduce = true;
    }
    void this.passedGap();
  }

  /** A part of the log may be lost, and sessions with it: older ones that came back with their rows hold nothing. */
  async passedGap(): Promise<void> {
    const held: Release[] = [];
    for (const { id, holder } of this.#registry.entries())
      if (holder?.state === "held") held.push({ id, epoch: holder.epoch });
    try {
      await retryRead(() => releaseForgotten(this.#database, this.#replica, held));
    } catch (error) {
      this.#log.warn({ err: error }, "cannot end the sessions that a restore brought back");
    }
  }

  /** Asks every stream to go elsewhere, each within a moment of its own. @param withinMs the longest of them */
  drain(withinMs: number): void {
    for (const session of this.#sessions) session.drain(Math.ceil(Math.random() * withinMs));
  }

  /** Takes no more, and waits until what was taken is written and told, `withinMs` at most; the streams end by it. */
  async finish(withinMs: number): Promise<void> {
    for (const session of this.#sessions) session.finish();
    const deadline = performance.now() + withinMs;
    while (this.#sessions.size > 0 && performance.now() < deadline) await sleep(POLL_MS);
  }

  /** Writes what waits, then leaves. What cannot be written is not acknowledged. */
  async close(): Promise<void> {
    await Promise.all([this.#reaper.close(), this.#recovery.close(), this.#pace.close(), this.#brake.close()]);
    // What the database does not take by then is given up by the committer, unacknowledged.
    const patience = new AbortController();
    await Promise.race([
      this.#intake.drain(),
      sleep(DRAIN_MS, undefined, { signal: patience.signal }).catch(() => undefined),
    ]);
    patience.abort();
    this.#claims.close();
    for (const session of [...this.#sessions]) session.close();
    this.#releaseUntil = performance.now() + DRAIN_MS;
    await this.#releaseNow();
    await this.#membership.close();
  }

  /** Others may be able to write where this replica is not: its streams should find one. They stay open meanwhile. */
  #cutOff(): void {
    this.#log.warn(
      { streams: this.#sessions.size },
      "cannot write for a while: streams are asked to try other replicas",
    );
    for (const session of this.#sessions) this.#sendElsewhere(session);
  }

  #sendElsewhere(session: Session): void {
    const withinMs = this.#pace.current.intervalMs * (session.isClaiming ? UNCLAIMED_SHARE : 1);
    session.drain(Math.ceil(Math.random() * withinMs));
  }

  /** A batch of heartbeats settles those of many streams, and some of them several times: each is told once, after it. */
  #announce(session: Session): void {
    this.#news.push(session);
    if (this.#news.length > 1) return;
    queueMicrotask(() => {
      const sessions = this.#news;
      this.#news = [];
      for (const one of sessions) one.announce();
    });
  }

  #release(held: readonly HeldAgent[]): void {
    for (const { id, epoch } of held) this.#releases.push({ id, epoch });
    if (this.#releases.length === 0) return;
    this.#releaseTimer ??= setTimeout(() => void this.#releaseNow(), RELEASE_MS);
  }

  /** Best effort: what stays held is given up when the lease ends or the replica is found gone. */
  async #releaseNow(): Promise<void> {
    clearTimeout(this.#releaseTimer);
    this.#releaseTimer = undefined;
    const releases = this.#releases;
    this.#releases = [];
    if (releases.length === 0) return;
    this.#releasing = this.#releasing
      .then(() => this.#releaseAll(releases))
      .catch((error: unknown) => this.#log.debug({ err: error }, "agents of closed streams could not be released"));
    await this.#releasing;
  }

  /** Where all streams end together, one statement for all of their agents would take too long, and hold up beats. */
  async #releaseAll(releases: readonly Release[]): Promise<void> {
    for (let first = 0; first < releases.length && performance.now() < this.#releaseUntil; first += RELEASED_AT_ONCE)
      await releaseAgents(this.#database, releases.slice(first, first + RELEASED_AT_ONCE));
  }
}
