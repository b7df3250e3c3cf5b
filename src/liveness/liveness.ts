import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "../../common/logging/logger.ts";
import type { Agent, Transition } from "../domain/agent.ts";
import type { Heartbeats, SessionListener, SessionOptions, UnaryOptions } from "../domain/claw-session.ts";
import type { ExpiryBrake } from "../domain/directories.ts";
import type { ParsedBeat } from "../domain/heartbeat.ts";
import type { Pace, PaceLimits } from "../domain/lease.ts";
import type { BeatResult } from "../domain/message-to-claw.ts";
import type { OfferLimits } from "../storage/change-group.ts";
import { type Committer, DEFAULT_OFFER_LIMITS } from "../storage/committer.ts";
import type { Database } from "../storage/database.ts";
import { cutOffFromDatabase } from "../storage/failures.ts";
import type { FleetTally } from "../storage/fleet-state.ts";
import { releaseForgotten } from "../storage/lease-queries.ts";
import { retryRead } from "../storage/retries.ts";
import { Metrics } from "../telemetry/metrics/metrics.ts";
import { BeatIntake } from "./beat-intake.ts";
import { BrakeWatch } from "./brake-watch.ts";
import { Claims } from "./claims.ts";
import { ClawPeers } from "./claw-peers.ts";
import { Deadlines } from "./deadlines.ts";
import { FleetPace } from "./fleet-pace.ts";
import { HeartbeatMetrics } from "./heartbeat-metrics.ts";
import type { HeldAgent } from "./held-agent.ts";
import { isolationTimesFor, Membership } from "./membership.ts";
import { Reaper } from "./reaper.ts";
import { RecentExpirations } from "./recent-expirations.ts";
import { Recovery } from "./recovery.ts";
import { Registry } from "./registry.ts";
import { type Release, ReleaseQueue } from "./release-queue.ts";
import { SessionNotifier } from "./session-notifier.ts";
import { SilentClaws } from "./silent-claws.ts";
import { type SessionContext, StreamSession } from "./stream-session.ts";
import { UnaryBeats } from "./unary-beats.ts";
import { WakeDeadlines } from "./wake-deadlines.ts";
import { WakeNotices } from "./wake-notices.ts";
import { WakeQueue } from "./wake-queue.ts";

/** How long a stopping replica waits for pending writes, in milliseconds. */
const DRAIN_MS = 2_000;
const POLL_MS = 20;
/**
 * A replica that cannot write drains its streams within one interval, and those whose agents it has not claimed within this
 * share of it: no outage time extends the leases of agents that no replica holds.
 */
const UNCLAIMED_SHARE = 1 / 4;
/** A rejected stream may retry after this share of an interval, and reaches another replica with some luck. */
const RETRY_SHARE = 1 / 10;

export interface LivenessOptions {
  readonly database: Database;
  readonly committer: Committer;
  readonly replica: number;
  readonly pace: PaceLimits;
  readonly offerLimits?: OfferLimits | undefined;
  readonly log: Logger;
  /** Default: metrics that nothing reads. */
  readonly metrics?: Metrics;
  /** This replica cannot write to the database. Other replicas may be able to, and should receive its heartbeats. */
  onCutOff?(error: unknown): void;
  /** It can write again. */
  onBack?(): void;
}

/** Sessions, leases and recovery of one replica. */
export class Liveness implements Heartbeats {
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
  readonly #deadlines: Deadlines;
  readonly #membership: Membership;
  readonly #brake: BrakeWatch;
  readonly #expirations: RecentExpirations;
  readonly #silent: SilentClaws;
  readonly #peers: ClawPeers;
  readonly #context: SessionContext;
  readonly #sessions = new Set<StreamSession>();
  readonly #notifier = new SessionNotifier();
  readonly #releases: ReleaseQueue;
  readonly #wakeNotices: WakeNotices;
  readonly #wakeDeadlines: WakeDeadlines;
  readonly #wakeQueue: WakeQueue;

  constructor(options: LivenessOptions) {
    const { database, replica, log, metrics = new Metrics() } = options;
    this.#database = database;
    this.#replica = replica;
    this.#log = log;
    this.#registry = new Registry(database.clock.now());
    const heartbeats = new HeartbeatMetrics(metrics);
    this.#expirations = new RecentExpirations(
      () => this.#pace.current.leaseMs,
      metrics.counter("harborforge_lease_expirations_reversed_total"),
    );
    const shared = { ...options, registry: this.#registry, expirations: this.#expirations };
    this.#intake = new BeatIntake({ ...shared, metrics: heartbeats });
    this.#claims = new Claims({
      database,
      replica,
      log,
      isHeldHere: (agent) => this.#registry.get(agent.agentId)?.holder?.epoch === agent.epoch,
      isAwake: () => this.#membership.awake,
      leaseMs: () => this.#pace.current.leaseMs,
    });
    this.#unary = new UnaryBeats(this.#registry, this.#intake, heartbeats);
    this.#pace = new FleetPace({ database, limits: options.pace, log });
    this.#membership = new Membership({
      ...options,
      metrics,
      isolationTimes: () => isolationTimesFor(this.#pace.current),
      stuckMs: () => Math.max(this.#intake.stuckMs, this.#claims.stuckMs, options.committer.stuckMs),
      onAdopted: (leases, noneBefore) => this.#reaper.track(leases, noneBefore),
      onCutOff: (error) => {
        this.#cutOff(error);
        options.onCutOff?.(error);
      },
      onBack: () => options.onBack?.(),
    });
    this.#peers = new ClawPeers(options);
    this.#silent = new SilentClaws({
      ...options,
      metrics,
      newestPeer: (clawIdentifier) => this.#peers.newest(clawIdentifier),
    });
    this.#reaper = new Reaper({
      ...shared,
      metrics,
      onSilentClaw: (clawIdentifier) => this.#silent.onSilent(clawIdentifier),
      tracks: (other) => this.#membership.tracks(other),
      hasPendingBeat: (entry) => entry.busy || this.#claims.isWaitingFor(entry.agentId),
    });
    this.#recovery = new Recovery({ ...options, metrics });
    this.#deadlines = new Deadlines({
      ...options,
      isAwake: () => this.#membership.awake,
      hasPendingBeat: (agentId) => this.#registry.get(agentId)?.busy === true || this.#claims.isWaitingFor(agentId),
    });
    this.#releases = new ReleaseQueue({ database, log });
    this.#brake = new BrakeWatch({ database, log, onReleased: () => this.#reaper.onBrakeReleased() });
    this.#wakeNotices = new WakeNotices(options);
    this.#wakeDeadlines = new WakeDeadlines({
      ...options,
      isAwake: () => this.#membership.awake,
      hasPendingBeat: (agentId) => this.#registry.get(agentId)?.busy === true,
    });
    this.#wakeQueue = new WakeQueue({
      ...options,
      limits: options.offerLimits ?? DEFAULT_OFFER_LIMITS,
      isAwake: () => this.#membership.awake,
    });
    this.#context = {
      registry: this.#registry,
      intake: this.#intake,
      claims: this.#claims,
      metrics: heartbeats,
      leaseMs: () => this.#pace.current.leaseMs,
      firstIntervalMs: () => this.#pace.first(),
      isTrackedElsewhere: (agent) =>
        agent !== undefined && !agent.held && agent.replicaId !== null && agent.replicaId !== replica,
      onFirstClaim: (session) => {
        if (this.#membership.cutOff) this.#sendElsewhere(session);
      },
      onClawHeard: (clawIdentifier, peer) => this.#peers.onStream(clawIdentifier, peer),
      release: (held) => this.#releases.add(held),
      onOpenWake: (holder, open) => this.#wakeNotices.onOpenWake(holder, open),
      sendWake: (holder, wakeId) => this.#wakeNotices.send(holder, wakeId),
      scheduleNotification: (session) => this.#notifier.schedule(session),
      onClosed: (session) => this.#sessions.delete(session),
    };
  }

  /** Resolves when the pace is known. Open no streams before. */
  start(): Promise<void> {
    this.#membership.start();
    this.#reaper.start();
    this.#recovery.start();
    this.#wakeDeadlines.start();
    this.#wakeQueue.start();
    this.#deadlines.start();
    this.#brake.start();
    this.#peers.start();
    return this.#pace.start();
  }

  /** The state of a second ago. */
  get brake(): ExpiryBrake {
    return this.#brake.brake;
  }

  /** The fleet some seconds ago. Undefined: not counted yet. */
  get fleet(): FleetTally | undefined {
    return this.#pace.tally;
  }

  pace(): Pace {
    return this.#pace.announced();
  }

  /** The number of open streams, of agents with an entry at this replica, and of claws that it found silent since its start. */
  statistics(): { readonly sessions: number; readonly agents: number; readonly silentClaws: number } {
    return { sessions: this.#sessions.size, agents: this.#registry.size, silentClaws: this.#silent.count };
  }

  /**
   * @throws Refusal `DATABASE_UNAVAILABLE` while this replica is cut off from the database: it could not claim the agents,
   * so other replicas would not know that their heartbeats arrive here
   */
  openSession(options: SessionOptions, listener: SessionListener): StreamSession {
    if (this.#membership.cutOff) throw cutOffFromDatabase(this.#pace.current.intervalMs * RETRY_SHARE);
    const session = new StreamSession(this.#context, options, listener);
    this.#sessions.add(session);
    return session;
  }

  async beat(beats: readonly ParsedBeat[], options: UnaryOptions): Promise<readonly BeatResult[]> {
    const results = await this.#unary.beat(beats, options);
    const { peer } = options;
    if (peer !== undefined)
      for (const { agentId, refusal } of results) {
        // Only claws of accepted beats: callers may send any name.
        const claw = options.clawIdentifier ?? this.#registry.get(agentId)?.agent?.clawIdentifier;
        if (refusal === null && claw !== undefined) this.#peers.onUnary(claw, peer);
      }
    return results;
  }

  /** This replica created an agent, so it watches the agent's first lease. */
  onCreated(agent: Agent): void {
    this.#registry.update(this.#registry.open(agent.id, agent.agentId), agent);
  }

  /** Takes the log of transitions, of all replicas, in order. */
  onTransition(transition: Transition): void {
    const entry = this.#registry.get(transition.agentId);
    if (entry?.id === transition.id) entry.onTransition(transition);
    if (transition.cause === "lease_expired")
      this.#expirations.expired(transition.id, transition.revision, transition.occurredAt);
    this.#reaper.onTransition(transition);
    this.#recovery.onTransition(transition);
    this.#silent.onTransition(transition);
  }

  /** A part of the log was lost: the next beat of each agent reads the agent anew, and its result shows it to the claw. */
  onRestart(): void {
    const holders: HeldAgent[] = [];
    for (const entry of this.#registry.entries()) {
      entry.agent = undefined;
      const { holder } = entry;
      if (holder === undefined) continue;
      holder.needsSnapshot = true;
      if (holder.state === "held") holders.push(holder);
    }
    void this.#wakeNotices.onLostHistory(holders);
    void this.onGap();
  }

  /** A part of the log may be lost, and sessions with it. Ends older sessions that a restore brought back with their rows. */
  async onGap(): Promise<void> {
    const held: Release[] = [];
    for (const { id, holder } of this.#registry.entries())
      if (holder?.state === "held") held.push({ id, epoch: holder.epoch });
    try {
      await retryRead(() => releaseForgotten(this.#database, this.#replica, held));
    } catch (error) {
      this.#log.warn(
        { event: "session.cleanup_failed", err: error },
        "failed to end sessions that a restore brought back",
      );
    }
  }

  /** Asks every stream to reconnect elsewhere, each within a random time. @param withinMs the longest, in milliseconds */
  drain(withinMs: number): void {
    for (const session of this.#sessions) session.drain(Math.ceil(Math.random() * withinMs));
  }

  /** Takes no more beats. Waits until earlier ones are written and acknowledged and the streams end, `withinMs` at most. */
  async finish(withinMs: number): Promise<void> {
    for (const session of this.#sessions) session.finish();
    const deadline = performance.now() + withinMs;
    while (this.#sessions.size > 0 && performance.now() < deadline) await sleep(POLL_MS);
  }

  /** Writes pending beats, then retires this replica. Beats that cannot be written are not acknowledged. */
  async close(): Promise<void> {
    await Promise.all([
      this.#reaper.close(),
      this.#recovery.close(),
      this.#deadlines.close(),
      this.#pace.close(),
      this.#brake.close(),
      this.#peers.close(),
      this.#wakeDeadlines.close(),
      this.#wakeQueue.close(),
    ]);
    this.#wakeNotices.close();
    // The committer drops what the database does not take by then. It is not acknowledged.
    const patience = new AbortController();
    await Promise.race([
      this.#intake.drain(),
      sleep(DRAIN_MS, undefined, { signal: patience.signal }).catch(() => undefined),
    ]);
    patience.abort();
    this.#claims.close();
    for (const session of [...this.#sessions]) session.close();
    await this.#releases.close(DRAIN_MS);
    await this.#silent.close();
    await this.#membership.close();
  }

  /** Other replicas may be able to write: the streams should find one. They stay open meanwhile. */
  #cutOff(error: unknown): void {
    const facts = error === undefined ? {} : { err: error };
    this.#log.warn(
      { event: "replica.cut_off", streams: this.#sessions.size, ...facts },
      "cannot write, asking streams to try other replicas",
    );
    for (const session of this.#sessions) this.#sendElsewhere(session);
  }

  #sendElsewhere(session: StreamSession): void {
    const withinMs = this.#pace.current.intervalMs * (session.isClaiming ? UNCLAIMED_SHARE : 1);
    session.drain(Math.ceil(Math.random() * withinMs));
  }
}
