import type { Micros } from "../../common/contract/time.ts";
import type { Logger } from "../../common/logging/logger.ts";
import type { Agent } from "../domain/agent.ts";
import { Refusal } from "../domain/errors.ts";
import { type Beat, type BeatVerdict, judgeBeat, judgeGoodbye, type StatusChange } from "../domain/status-machine.ts";
import type { Wake } from "../domain/wake.ts";
import { concernsWakes, judgeWakeBeat } from "../domain/wake-beats.ts";
import type { Replier } from "../domain/wake-replies.ts";
import { END_LEASE } from "../storage/agent-change.ts";
import type { Committer, Verdict } from "../storage/committer.ts";
import { MAX_CHANGES_OF_AGENT } from "../storage/committer.ts";
import type { Database } from "../storage/database.ts";
import { databaseUnavailable } from "../storage/failures.ts";
import { tooManyChanges } from "../storage/refusals.ts";
import type { WakeFacts } from "../storage/wake-facts.ts";
import type { AgentEntry } from "./agent-entry.ts";
import { BeatWriter } from "./beat-writer.ts";
import type { HeartbeatMetrics } from "./heartbeat-metrics.ts";
import { type BeatOutcome, type PendingBeat, RENEWED } from "./pending-beat.ts";
import type { RecentExpirations } from "./recent-expirations.ts";
import type { Registry } from "./registry.ts";
import { agentNotFound, reportOutdated, sessionSuperseded, wrongClaw } from "./session-refusals.ts";

/** Rejections of the sender, and not of the report. */
const SENDER_REASONS: ReadonlySet<string> = new Set(["SESSION_SUPERSEDED", "WRONG_CLAW", "AGENT_NOT_FOUND"]);

/**
 * Judges each beat by the last known state of its agent, and writes it in the cheap way (a renewal, in a batch) or in the
 * expensive one (a change, through the committer). Settles the beats of one agent in the order they came.
 */
export class BeatIntake {
  readonly #database: Database;
  readonly #committer: Committer;
  readonly #registry: Registry;
  readonly #writer: BeatWriter;
  readonly #log: Logger;
  readonly #metrics: HeartbeatMetrics;
  readonly #expirations: RecentExpirations;
  readonly #changes = new Set<Promise<void>>();

  constructor(options: {
    database: Database;
    committer: Committer;
    registry: Registry;
    log: Logger;
    metrics: HeartbeatMetrics;
    expirations: RecentExpirations;
  }) {
    this.#database = options.database;
    this.#committer = options.committer;
    this.#registry = options.registry;
    this.#log = options.log;
    this.#metrics = options.metrics;
    this.#expirations = options.expirations;
    this.#writer = new BeatWriter({
      ...options,
      onApplied: (entry, beats) => {
        for (const beat of beats) beat.settle(this.#renewed(entry, beat));
        entry.settled();
        this.#proceed(entry);
      },
      onMissed: (entry, beats) => {
        // The agent changed elsewhere: each beat is judged again, before later ones.
        entry.waiting.unshift(...beats);
        entry.settled();
        this.#proceed(entry);
      },
    });
  }

  /** For how many milliseconds the oldest batch has been on its way to the database; 0: none is. */
  get stuckMs(): number {
    return this.#writer.stuckMs;
  }

  /**
   * Takes a beat of an agent that has an entry here. Beats of streams go before unary ones. Only a limited number of unary
   * beats may wait, so a caller that sends very many of them delays only itself.
   */
  accept(entry: AgentEntry, beat: PendingBeat): void {
    if (!entry.underway && entry.waiting.length === 0) {
      this.#judge(entry, beat);
      return;
    }
    const afterStreams = entry.waiting.findLastIndex((other) => !isUnary(other)) + 1;
    if (!isUnary(beat)) {
      entry.waiting.splice(afterStreams, 0, beat);
      return;
    }
    if (entry.waiting.length - afterStreams >= MAX_CHANGES_OF_AGENT) {
      entry.waiting = entry.waiting.filter(({ abandoned }) => !abandoned);
      if (entry.waiting.filter(isUnary).length >= MAX_CHANGES_OF_AGENT) {
        beat.settle(refused(tooManyChanges(beat.agentId, MAX_CHANGES_OF_AGENT)));
        return;
      }
    }
    entry.waiting.push(beat);
  }

  /** Takes a unary beat of an agent that has no entry here. */
  acceptElsewhere(beat: PendingBeat): void {
    this.#change(undefined, beat, []);
  }

  /** Another session took the agent. Rejects the beats of the former session that are not written yet. */
  supersede(entry: AgentEntry): void {
    const isVoid = (beat: PendingBeat): boolean => beat.holder !== undefined && beat.holder !== entry.holder;
    const voided = [...entry.renewals.filter(isVoid), ...entry.waiting.filter(isVoid)];
    entry.renewals = entry.renewals.filter((beat) => !isVoid(beat));
    entry.waiting = entry.waiting.filter((beat) => !isVoid(beat));
    for (const beat of voided) beat.settle(refused(sessionSuperseded(entry.agentId)));
  }

  /** Resolves when all beats are written, or given up. */
  async drain(): Promise<void> {
    do {
      await this.#writer.drain();
      await Promise.all(this.#changes);
    } while (this.#changes.size > 0 || this.#writer.waiting);
  }

  #proceed(entry: AgentEntry): void {
    while (!entry.underway) {
      const beat = entry.waiting.shift();
      if (beat === undefined) {
        this.#registry.prune(entry);
        return;
      }
      if (!beat.abandoned) this.#judge(entry, beat);
    }
  }

  #judge(entry: AgentEntry, beat: PendingBeat): void {
    const { agent } = entry;
    if (agent === undefined || beat.beat === "leaving" || refusalFor(agent, beat) !== undefined) {
      this.#changeOf(entry, beat);
      return;
    }
    const verdict = this.#quickVerdict(agent, beat, beat.beat);
    if (verdict === undefined) {
      this.#changeOf(entry, beat);
      return;
    }
    beat.heldOff = verdict.kind === "held_off";
    if (verdict.kind === "renew" || (verdict.kind === "held_off" && verdict.change === null)) this.#renew(entry, beat);
    else this.#changeOf(entry, beat);
  }

  /** Undefined: the beat changes a wake, or replies to one. */
  #quickVerdict(agent: Agent, pending: PendingBeat, beat: Beat): BeatVerdict | undefined {
    const now = this.#database.clock.now();
    if (!concernsWakes(agent, beat)) return judgeBeat(agent, beat, now, Math.random());
    if (beat.replies !== undefined || beat.leaving === true) return undefined;
    const verdict = judgeWakeBeat(agent, beat, NO_WAKES, replierOf(pending), now, Math.random());
    return verdict.wakes.length === 0 ? verdict.status : undefined;
  }

  #renew(entry: AgentEntry, beat: PendingBeat): void {
    entry.judgedBy = entry.agent;
    if (entry.renewals.length > 0) {
      entry.renewals.push(beat);
      return;
    }
    entry.renewals = [beat];
    this.#writer.add(entry);
  }

  /** A change renews the lease as well, so it also settles the renewals that wait. */
  #changeOf(entry: AgentEntry, beat: PendingBeat): void {
    const renewals = entry.takeRenewals();
    entry.underway = true;
    this.#change(entry, beat, renewals);
  }

  #change(entry: AgentEntry | undefined, beat: PendingBeat, renewals: readonly PendingBeat[]): void {
    const change = this.#commit(entry, beat).then((outcome) => {
      if (outcome.kind === "applied" && entry !== undefined) {
        for (const renewal of renewals) renewal.settle(this.#renewed(entry, renewal));
      }
      const again = outcome.kind === "applied" ? [] : renewals;
      // The change did not renew the lease. If its sender was rejected, so are the earlier beats of the same sender, and
      // first: they go back to the session in their order.
      const shared = outcome.kind === "refused" && SENDER_REASONS.has(outcome.refusal.reason);
      for (const renewal of again) if (shared && renewal.holder === beat.holder) renewal.settle(outcome);
      beat.settle(outcome);
      if (entry === undefined) return;
      entry.waiting.unshift(...again.filter((renewal) => !shared || renewal.holder !== beat.holder));
      entry.settled();
      this.#proceed(entry);
    });
    this.#changes.add(change);
    void change.finally(() => this.#changes.delete(change));
  }

  async #commit(entry: AgentEntry | undefined, beat: PendingBeat): Promise<BeatOutcome> {
    let seen: Agent | undefined;
    const replies = beat.beat === "leaving" ? undefined : beat.beat.replies;
    try {
      const outcome = await this.#committer.submit<BeatOutcome>({
        agentId: beat.agentId,
        actor: `agent:${beat.agentId}`,
        report: true,
        ...(entry === undefined ? {} : { id: entry.id }),
        ...(entry?.agent === undefined || endsUnwritten(entry.agent, beat) ? {} : { known: entry.agent }),
        ...(beat.deadline === undefined ? {} : { deadline: beat.deadline, call: callOf(beat) }),
        ...(replies === undefined
          ? {}
          : { facts: { wakeIds: replies.map(({ wakeId }) => wakeId), admission: false }, isRepeatable: true }),
        judge: (agent, now, facts) => {
          seen = agent;
          return this.#verdict(agent, beat, now, entry, facts);
        },
      });
      return outcome;
    } catch (error) {
      if (entry !== undefined && seen !== undefined) this.#registry.update(entry, seen);
      if (error instanceof Refusal) {
        return error.reason === "DATABASE_UNAVAILABLE" ? { kind: "open", refusal: error } : refused(error, seen);
      }
      this.#log.error(
        { event: "heartbeat.apply_failed", err: error, agentId: beat.agentId },
        "failed to apply a heartbeat",
      );
      return { kind: "open", refusal: databaseUnavailable(error) };
    }
  }

  #verdict(
    agent: Agent | undefined,
    pending: PendingBeat,
    now: Micros,
    entry: AgentEntry | undefined,
    facts: WakeFacts,
  ): Verdict<BeatOutcome> {
    if (agent === undefined) throw agentNotFound(pending.agentId);
    const refusal = refusalFor(agent, pending);
    if (refusal !== undefined) throw refusal;
    const learn = (after: Agent): void => {
      if (entry !== undefined && pending.beat !== "leaving") this.#metrics.renewing(entry, now, pending.leaseMs);
      // An agent without an entry came back by a unary heartbeat: perhaps no other replica watches its lease.
      const known = entry ?? this.#registry.open(after.id, after.agentId);
      this.#registry.update(known, after);
      this.#registry.prune(known);
    };
    if (concernsWakes(agent, pending.beat)) return this.#wakeVerdict(agent, pending, now, facts, learn);
    if (pending.beat === "leaving") {
      const goodbye = judgeGoodbye(agent);
      if (goodbye === undefined) return { kind: "done", result: { kind: "applied", agent } };
      return this.#write(agent, pending, goodbye, learn);
    }
    const verdict = judgeBeat(agent, pending.beat, now, Math.random());
    const lease = { kind: "grant", ms: pending.leaseMs } as const;
    switch (verdict.kind) {
      case "renew":
      case "confirm":
      case "known":
        return {
          kind: "write",
          write: {
            kind: "quiet",
            agent,
            endHold: verdict.kind === "confirm",
            claimKnown: verdict.kind === "known",
            lease,
            heartbeat: true,
            fenceEpoch: true,
          },
          result: ({ agent: after }) => {
            learn(after);
            return { kind: "applied", agent: pending.holder?.needsSnapshot === false ? undefined : after };
          },
        };
      case "held_off":
        if (verdict.change === null) {
          return {
            kind: "write",
            write: { kind: "quiet", agent, lease, heartbeat: true, fenceEpoch: true },
            result: ({ agent: after }) => {
              learn(after);
              return refused(reportOutdated(after), after);
            },
          };
        }
        return this.#write(agent, pending, verdict.change, (after) => learn(after), reportOutdated);
      case "change":
        return this.#write(agent, pending, verdict, learn);
    }
  }

  /** The agent has wakes, or the beat replies to some: its replies and its status are one change. */
  #wakeVerdict(
    agent: Agent,
    pending: PendingBeat,
    now: Micros,
    facts: WakeFacts,
    learn: (after: Agent) => void,
  ): Verdict<BeatOutcome> {
    const { status, wakes, results } = judgeWakeBeat(
      agent,
      pending.beat,
      wakesOf(agent, facts),
      replierOf(pending),
      now,
      Math.random(),
    );
    const isReply = results.length > 0;
    const change = status.kind === "held_off" ? status.change : status.kind === "change" ? status : null;
    const isLeaving = pending.beat === "leaving" || pending.beat.leaving === true;
    const outcome = (after: Agent, revision: bigint | undefined): BeatOutcome => {
      learn(after);
      const replied = isReply ? { results, revision } : undefined;
      if (status.kind === "held_off") {
        return { kind: "refused", refusal: reportOutdated(after), agent: after, replied };
      }
      const isKnown = !isReply && change === null && pending.holder?.needsSnapshot === false;
      return { kind: "applied", agent: isKnown ? undefined : after, replied };
    };
    const grant = { kind: "grant", ms: pending.leaseMs } as const;
    if (change === null && wakes.length === 0) {
      // The goodbye of an agent that is offline.
      if (isLeaving) return { kind: "done", result: outcome(agent, undefined) };
      return {
        kind: "write",
        write: {
          kind: "quiet",
          agent,
          endHold: status.kind === "confirm",
          claimKnown: status.kind === "known",
          lease: grant,
          heartbeat: true,
          fenceEpoch: true,
        },
        result: ({ agent: after }) => outcome(after, undefined),
      };
    }
    const leaves = change?.status === "offline";
    return {
      kind: "write",
      write: {
        kind: "update",
        agent,
        cause: change?.cause ?? (isReply ? "wake" : "report"),
        ...(change === null ? {} : { status: change }),
        ...(status.kind === "confirm" ? { hold: { kind: "clear" } as const } : {}),
        wakes,
        // A goodbye of an offline agent grants no lease.
        lease: leaves || isLeaving ? END_LEASE : grant,
        heartbeat: true,
        fenceEpoch: true,
        ...(leaves ? { held: false } : pending.holder === undefined ? {} : { held: true }),
      },
      result: ({ agent: after, revision }) => outcome(after, revision ?? undefined),
      // Only the deadline of an offer that its agent answers too late.
      guarded: () => ({ kind: "open", refusal: databaseUnavailable(undefined) }),
    };
  }

  #write(
    agent: Agent,
    pending: PendingBeat,
    change: StatusChange,
    learn: (after: Agent) => void,
    refusal?: (after: Agent) => Refusal,
  ): Verdict<BeatOutcome> {
    const leaves = change.status === "offline";
    return {
      kind: "write",
      write: {
        kind: "update",
        agent,
        cause: change.cause,
        status: change,
        lease: leaves ? END_LEASE : { kind: "grant", ms: pending.leaseMs },
        heartbeat: true,
        fenceEpoch: true,
        ...(leaves ? { held: false } : pending.holder === undefined ? {} : { held: true }),
      },
      result: ({ agent: after }) => {
        learn(after);
        if (agent.status === "offline") this.#expirations.returned(agent, after.statusChangedAt);
        return refusal === undefined
          ? { kind: "applied", agent: after, changed: true }
          : refused(refusal(after), after);
      },
    };
  }

  /** The outcome of a beat that only renewed the lease. It shows the agent to an outdated report, and to a first beat. */
  #renewed(entry: AgentEntry, pending: PendingBeat): BeatOutcome {
    const { agent } = entry;
    if (agent === undefined) return RENEWED;
    if (pending.heldOff) return refused(reportOutdated(agent), agent);
    return pending.holder?.needsSnapshot === false ? RENEWED : { kind: "applied", agent };
  }
}

const NO_WAKES: ReadonlyMap<string, Wake> = new Map();

/** The wakes of this agent: a reply learns nothing of those of other agents. */
function wakesOf(agent: Agent, { wakes }: WakeFacts): ReadonlyMap<string, Wake> {
  const own = new Map<string, Wake>();
  for (const [wakeId, { wake }] of wakes) if (wake.agent === agent.id) own.set(wakeId, wake);
  return own;
}

function replierOf({ holder }: PendingBeat): Replier {
  return { instanceId: holder?.session.wakesFor };
}

function isUnary({ holder }: PendingBeat): boolean {
  return holder === undefined;
}

function callOf(beat: PendingBeat): { readonly over: boolean } {
  return {
    get over() {
      return beat.abandoned;
    },
  };
}

function refused(refusal: Refusal, agent?: Agent): BeatOutcome {
  return { kind: "refused", refusal, agent };
}

/**
 * Whether a beat leads to no write. Then no fencing detects that the agent changed elsewhere, so the committer has to read
 * the agent instead of using the state that is known here.
 */
function endsUnwritten(agent: Agent, beat: PendingBeat): boolean {
  if (refusalFor(agent, beat) !== undefined) return true;
  if (concernsWakes(agent, beat.beat)) return true;
  return beat.beat === "leaving" && judgeGoodbye(agent) === undefined;
}

/** Why the sender of a beat may not speak for the agent; undefined: it may. */
function refusalFor(agent: Agent, { holder, clawIdentifier }: PendingBeat): Refusal | undefined {
  const claw = holder === undefined ? clawIdentifier : holder.session.clawIdentifier;
  if (claw !== undefined && claw !== agent.clawIdentifier) return wrongClaw(agent, claw);
  if (holder !== undefined && holder.epoch !== agent.epoch) return sessionSuperseded(agent.agentId);
  return undefined;
}
