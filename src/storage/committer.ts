import { setMaxListeners } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";
import type { Micros } from "../../common/contract/time.ts";
import { Backoff } from "../../common/scheduling/backoff.ts";
import { Semaphore } from "../../common/scheduling/semaphore.ts";
import { LONGEST_TIMER_MS } from "../../common/scheduling/timers.ts";
import type { Agent } from "../domain/agent.ts";
import type { Call, RequestKey } from "../domain/directories.ts";
import { Metrics } from "../telemetry/metrics/metrics.ts";
import type { TracedSpan, Tracing } from "../telemetry/tracing/tracing.ts";
import type { AgentCreation, AgentWrite, Committed } from "./agent-change.ts";
import {
  commitGroup,
  type FirstAnswer,
  FirstAnswers,
  lockedAgents,
  type MemberOutcome,
  type OfferLimits,
  readAgents,
} from "./change-group.ts";
import { ChangeQueue } from "./change-queue.ts";
import { CommitMetrics } from "./commit-metrics.ts";
import type { Database } from "./database.ts";
import { databaseUnavailable, failureKind, isLockTimeout, isPermanent, mayBeOneRow, refusalFor } from "./failures.ts";
import { conflictRefusal, reusedRequestId, tooManyChanges, type Wanted } from "./refusals.ts";
import type { OfferLimit } from "./wake-change.ts";
import { NO_FACTS, readWakeFacts, type WakeFacts, type WantedFacts } from "./wake-facts.ts";

/** The largest group: one round trip takes some tens of milliseconds. */
const LARGEST_GROUP = 1_000;
/**
 * Waiting changes of one agent, and as many of its unary heartbeats, before further ones are rejected. Each change
 * needs a group of its own, so this many take some tenths of a second. Changes of the service itself do not count: they
 * are few, and they must not be rejected.
 */
export const MAX_CHANGES_OF_AGENT = 64;
/** After this many failures in a row, a group is split to find the member that causes them. */
const MAX_FAILURES_OF_GROUP = 2;
/** The pause between attempts for a quarantined agent, in milliseconds. An attempt may wait up to 2 s for a lock. */
const FIRST_QUARANTINE_PAUSE_MS = 250;
const LONGEST_QUARANTINE_PAUSE_MS = 2_000;
const FIRST_RETRY_MS = 20;
const LONGEST_RETRY_MS = 1_000;

/** The defaults of the settings. */
export const DEFAULT_OFFER_LIMITS: OfferLimits = { perSecond: 100, perClaw: 50 };

export type Verdict<Result> =
  /** No write is needed. */
  | { readonly kind: "done"; readonly result: Result }
  | {
      readonly kind: "write";
      readonly write: AgentWrite;
      readonly result: (committed: Committed) => Result;
      /** For an expiry: the lease must not expire before `until`, or the deadline of a wake. */
      readonly guarded?: (until: Micros) => Result;
      /** For an offer of a wake: a limit is reached. May throw a `Refusal`. */
      readonly limited?: (limit: OfferLimit) => Result;
    };

/** A requested change before it is judged. */
export interface Change<Result> {
  /**
   * The agent. Changes of one `agentId` commit in the order of submission, except that its own reports may come sooner.
   * `id`: only this row, not an older or newer agent with the same `agentId`.
   */
  readonly agentId: string;
  readonly id?: bigint;
  /** The agent as the caller knows it, which saves a read. The fence catches an outdated one. */
  readonly known?: Agent;
  readonly actor: string;
  readonly request?: RequestKey | undefined;
  /** Makes the result of a repeated request from the stored response. */
  readonly repeat?: (answer: FirstAnswer) => Result;
  /** The agent's own report. It waits for at most one other change. */
  readonly report?: boolean;
  /**
   * The change must not commit after this moment of `performance.now()`. Undefined: the change must happen, however
   * long the database is unavailable.
   */
  readonly deadline?: number;
  /** The call that requested the change. A change that was not sent before its call ended is dropped. */
  readonly call?: Pick<Call, "over">;
  /**
   * Decides by the current agent (undefined: it does not exist) and the database's clock. Called again after a
   * conflict. Throws a `Refusal` to reject the change.
   */
  judge(agent: Agent | undefined, now: Micros, facts: WakeFacts): Verdict<Result>;
  /** Read before the change is judged, and after its agent. */
  readonly facts?: WantedFacts;
  /** The change recognises an earlier attempt by itself, so it may be judged again after a lost connection. */
  readonly isRepeatable?: boolean;
}

interface Waiting {
  readonly change: Change<unknown>;
  known: Agent | undefined;
  /** A former attempt lost its connection, so it may have been committed. */
  inDoubt: boolean;
  /** The span of the call that requested it, if tracing is on. */
  readonly span: TracedSpan | undefined;
  /** Failed attempts in a row while the database was reachable. */
  failures: number;
  resolve(result: unknown): void;
  reject(error: unknown): void;
}

interface Judged extends Waiting {
  readonly write: AgentWrite;
  readonly result: (committed: Committed) => unknown;
  readonly guarded: ((until: Micros) => unknown) | undefined;
  readonly limited: ((limit: OfferLimit) => unknown) | undefined;
}

export interface CommitterOptions {
  readonly metrics?: Metrics;
  readonly tracing?: Tracing | undefined;
  readonly offerLimits?: OfferLimits | undefined;
}

/**
 * Commits all changes of a replica that get a revision: reports, services' changes, expiry, recovery, creations.
 * Waiting changes share a transaction. One group is in flight at a time. A failing member does not fail the other
 * members.
 */
export class Committer {
  readonly #database: Database;
  readonly #replica: number;
  readonly #onCommit: () => void;
  readonly #limits: OfferLimits;
  readonly #queue = new ChangeQueue<Waiting>((waiting) => !this.#isWanted(waiting, undefined));
  #running: Promise<void> | undefined;
  #closed = false;
  /** The start of the oldest request that the database has not answered, by `performance.now()`. */
  #unansweredSince: number | undefined;
  /**
   * The changes of quarantined agents, in order. An agent is quarantined when its change failed alone, so that other
   * agents do not wait for it.
   */
  readonly #quarantine = new Map<string, Waiting[]>();
  readonly #runningQuarantine = new Set<Promise<void>>();
  /** One attempt at a time: each may keep a connection until a lock times out. */
  readonly #quarantineSlot = new Semaphore(1);
  readonly #closing = new AbortController();
  readonly #backoff = new Backoff(FIRST_RETRY_MS, LONGEST_RETRY_MS);
  readonly #metrics: CommitMetrics;
  readonly #tracing: Tracing | undefined;
  /** When each change was submitted that is not settled, by `performance.now()`; the oldest first. */
  readonly #unsettled = new Set<{ readonly at: number }>();

  /**
   * @param onCommit called after each group with a transition, so that watchers need not wait for a poll
   * @param options default: metrics that nothing reads, no tracing, and the default limits of offers
   */
  constructor(database: Database, replica: number, onCommit: () => void, options: CommitterOptions = {}) {
    this.#limits = options.offerLimits ?? DEFAULT_OFFER_LIMITS;
    this.#database = database;
    this.#replica = replica;
    this.#onCommit = onCommit;
    this.#metrics = new CommitMetrics(options.metrics ?? new Metrics());
    this.#tracing = options.tracing;
    // Each quarantined agent adds a listener.
    setMaxListeners(0, this.#closing.signal);
  }

  /**
   * Resolves when the change is committed or needs no write.
   *
   * @throws Refusal (rejects) `LIMIT_EXCEEDED` for a change with a deadline, if too many changes of its agent wait;
   * `DATABASE_UNAVAILABLE` after the deadline or the end of the call, with whether the change may have been made; what
   * `judge` throws
   */
  submit<Result>(change: Change<Result>): Promise<Result> {
    return new Promise<Result>((resolve, reject) => {
      if (this.#closed) {
        reject(databaseUnavailable(undefined));
        return;
      }
      if (change.deadline !== undefined && this.#isFull(change)) {
        reject(tooManyChanges(change.agentId, MAX_CHANGES_OF_AGENT));
        return;
      }
      const submitted = { at: performance.now() };
      this.#unsettled.add(submitted);
      this.#queue.push({
        change,
        known: change.known,
        inDoubt: false,
        span: this.#tracing?.activeSpan,
        failures: 0,
        resolve: (result) => {
          this.#unsettled.delete(submitted);
          resolve(result as Result);
        },
        reject: (error) => {
          this.#unsettled.delete(submitted);
          reject(error);
        },
      });
      this.#running ??= this.#start();
    });
  }

  /** The number of waiting changes. */
  get waiting(): number {
    let size = this.#queue.size;
    for (const changes of this.#quarantine.values()) size += changes.length;
    return size;
  }

  /** The age of the oldest change that is not settled, in milliseconds; 0: there is none. */
  get oldestWaitingMs(): number {
    const [oldest] = this.#unsettled;
    return oldest === undefined ? 0 : performance.now() - oldest.at;
  }

  /** How long the database has not carried out a request, in milliseconds. */
  get stuckMs(): number {
    return this.#unansweredSince === undefined ? 0 : performance.now() - this.#unansweredSince;
  }

  /** Waits until all submitted changes are settled. Rejects later ones. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#closing.abort();
    await this.#running;
    await Promise.all(this.#runningQuarantine);
  }

  #isFull(change: Change<unknown>): boolean {
    const quarantined = this.#quarantine.get(change.agentId)?.length ?? 0;
    return quarantined >= MAX_CHANGES_OF_AGENT || this.#queue.isFull(MAX_CHANGES_OF_AGENT, change);
  }

  /** Not in the span of the call that happens to come first. */
  #start(): Promise<void> {
    return this.#tracing === undefined ? this.#run() : this.#tracing.detached(() => this.#run());
  }

  async #run(): Promise<void> {
    // Wait one turn of the event loop, so that changes of the same moment share the first group.
    await new Promise((resolve) => setImmediate(resolve));
    while (this.#queue.size > 0) {
      const group = this.#queue.takeGroup(LARGEST_GROUP).filter((waiting) => !this.#joinQuarantine(waiting));
      if (group.length === 0) continue;
      try {
        await this.#traced(group, () => this.#attempt(group));
      } catch (error) {
        if (isPermanent(failureKind(error))) {
          this.#markAnswered();
          for (const waiting of group) waiting.reject(refusalFor(error));
        } else await this.#retryLater(group, error);
      }
    }
    // If several agents are in quarantine and nothing was committed since, the database is the likely cause.
    if (this.#quarantine.size < 2) this.#markAnswered();
    this.#running = undefined;
  }

  /** Appends a change to the quarantine of its agent. False: the agent is not in quarantine. */
  #joinQuarantine(waiting: Waiting): boolean {
    const quarantined = this.#quarantine.get(waiting.change.agentId);
    quarantined?.push(waiting);
    return quarantined !== undefined;
  }

  /** Quarantines the agent: its changes commit one by one, outside of the groups, until one of them is settled. */
  #startQuarantine(waiting: Waiting): void {
    const { agentId } = waiting.change;
    const quarantined = this.#quarantine.get(agentId);
    if (quarantined !== undefined) {
      quarantined.unshift(waiting);
      return;
    }
    this.#quarantine.set(agentId, [waiting]);
    const running = this.#runQuarantine(agentId).finally(() => this.#runningQuarantine.delete(running));
    this.#runningQuarantine.add(running);
  }

  async #runQuarantine(agentId: string): Promise<void> {
    const changes = this.#quarantine.get(agentId) ?? [];
    const pauses = new Backoff(FIRST_QUARANTINE_PAUSE_MS, LONGEST_QUARANTINE_PAUSE_MS);
    while (changes.length > 0 && !this.#closed) {
      await sleep(pauses.next(), undefined, { signal: this.#closing.signal }).catch(() => undefined);
      changes.splice(0, changes.length, ...changes.filter((waiting) => this.#isWanted(waiting, undefined)));
      using slot = await this.#quarantineSlot.enter(performance.now() + LONGEST_TIMER_MS);
      const first = slot === undefined ? undefined : changes.shift();
      if (first === undefined) continue;
      const outcome = await this.#traced([first], () => this.#attemptQuarantined(first));
      if (outcome === "written") break;
      if (outcome !== "settled") changes.unshift(outcome);
    }
    this.#quarantine.delete(agentId);
    // Its other changes return to the groups.
    if (this.#closed) for (const { reject, inDoubt } of changes) reject(databaseUnavailable(undefined, inDoubt));
    else if (changes.length > 0) {
      this.#queue.putBack(changes);
      this.#running ??= this.#start();
    }
  }

  /**
   * @returns the change if it needs another attempt; "settled" if no write was needed, in which case the row may still
   * be locked
   */
  async #attemptQuarantined(waiting: Waiting): Promise<Waiting | "written" | "settled"> {
    try {
      const agents = await this.#readUnknown([waiting]);
      const answers = await this.#readAnswers([waiting]);
      const judged = this.#judge(waiting, agents, answers, await this.#readFacts([waiting], agents));
      if (judged === undefined) return "settled";
      // Use another pool: this may take long, and the pool of the groups is small.
      const client = await this.#database.feed.connect();
      try {
        const [again] = this.#settleAll([judged], await this.#send(client, [judged]));
        client.release();
        this.#markAnswered();
        return again ?? "written";
      } catch (error) {
        client.release(true);
        if (failureKind(error) === "lost") waiting.inDoubt = true;
        throw error;
      }
    } catch (error) {
      if (!isPermanent(failureKind(error))) return unjudged(waiting);
      waiting.reject(refusalFor(error));
      return "settled";
    }
  }

  /** Work for a group is one span, linked to the calls that requested its changes. */
  #traced<Outcome>(group: readonly Waiting[], work: () => Promise<Outcome>): Promise<Outcome> {
    if (this.#tracing === undefined) return work();
    const spans = group.flatMap(({ span }) => (span === undefined ? [] : [span]));
    return this.#tracing.shared("commit group", spans, work);
  }

  #markAnswered(): void {
    this.#unansweredSince = undefined;
  }

  /** The database is unavailable or busy: the members keep their places, and wait as long as each of them may. */
  async #retryLater(group: readonly Waiting[], error: unknown): Promise<void> {
    this.#putBack(group, error);
    await new Promise((resolve) => setTimeout(resolve, this.#backoff.next()));
  }

  #putBack(group: readonly Waiting[], error: unknown): void {
    const isStopping = ({ change }: Waiting): boolean => this.#closed && change.deadline === undefined;
    for (const waiting of group) if (isStopping(waiting)) waiting.reject(databaseUnavailable(error, waiting.inDoubt));
    this.#queue.putBack(group.filter((waiting) => !isStopping(waiting) && this.#isWanted(waiting, error)));
  }

  /**
   * Whether the caller still waits for the change. Checked before each step, because each step may take long. Rejects
   * an unwanted change.
   */
  #isWanted(waiting: Waiting, error: unknown): boolean {
    const { deadline, call } = waiting.change;
    const isWanted = call?.over !== true && (deadline === undefined || performance.now() < deadline);
    if (!isWanted) waiting.reject(databaseUnavailable(error, waiting.inDoubt));
    return isWanted;
  }

  async #attempt(group: readonly Waiting[]): Promise<void> {
    this.#unansweredSince ??= performance.now();
    const agents = await this.#readUnknown(group);
    // Read them after the agents: a reader that sees the change of an earlier attempt then also sees its response.
    const answers = await this.#readAnswers(group);
    const facts = await this.#readFacts(group, agents);
    const judged: Judged[] = [];
    for (const waiting of group) {
      if (!this.#isWanted(waiting, undefined)) continue;
      const ready = this.#judge(waiting, agents, answers, facts);
      if (ready !== undefined) judged.push(ready);
    }
    if (judged.length > 0) await this.#commit(judged);
    else this.#markAnswered();
  }

  async #readUnknown(group: readonly Waiting[]): Promise<Map<string, Agent>> {
    const unknown = group.filter((waiting) => waiting.known === undefined || waiting.change.facts !== undefined);
    if (unknown.length === 0) return new Map();
    const ids = unknown.flatMap(({ change }) => (change.id === undefined ? [] : [change.id]));
    const agentIds = unknown.flatMap(({ change }) => (change.id === undefined ? [change.agentId] : []));
    const agents = await readAgents(this.#database.commits, this.#database.clock, { ids, agentIds });
    return new Map(agents.map((agent) => [agent.agentId, agent]));
  }

  /** After the agents: each change of a wake moves its agent's revision, so a wake that is newer than its agent is noticed. */
  #readFacts(group: readonly Waiting[], agents: ReadonlyMap<string, Agent>): Promise<WakeFacts> {
    const wanted = group.flatMap(({ change: { facts, agentId } }) => (facts === undefined ? [] : [{ facts, agentId }]));
    if (wanted.length === 0) return Promise.resolve(NO_FACTS);
    const admissions = wanted.flatMap(({ facts, agentId }) => (facts.admission ? (agents.get(agentId)?.id ?? []) : []));
    return readWakeFacts(
      this.#database.commits,
      wanted.flatMap(({ facts }) => facts.wakeIds),
      admissions,
    );
  }

  #readAnswers(group: readonly Waiting[]): Promise<FirstAnswers> {
    const requests = group.flatMap(({ change }) => (change.request === undefined ? [] : [change.request]));
    return FirstAnswers.read(this.#database.commits, requests);
  }

  #judge(waiting: Waiting, agents: Map<string, Agent>, answers: FirstAnswers, facts: WakeFacts): Judged | undefined {
    const { change } = waiting;
    try {
      const answer = change.request === undefined ? undefined : answers.of(change.request);
      if (answer !== undefined) {
        waiting.resolve(repeated(change, answer));
        return undefined;
      }
      let agent = (change.facts === undefined ? waiting.known : undefined) ?? agents.get(change.agentId);
      if (agent !== undefined && change.id !== undefined && agent.id !== change.id) agent = undefined;
      const mayRepeat = change.request !== undefined || change.isRepeatable === true;
      if (waiting.inDoubt && !mayRepeat && change.deadline !== undefined) {
        // Without a request_id, a service could mistake its own first attempt for another change.
        throw databaseUnavailable(undefined, true);
      }
      const verdict = change.judge(agent, this.#database.clock.now(), facts);
      if (verdict.kind === "write") {
        const { write, result, guarded, limited } = verdict;
        return { ...waiting, write, result, guarded, limited };
      }
      waiting.resolve(verdict.result);
    } catch (error) {
      waiting.reject(error);
    }
    return undefined;
  }

  async #commit(group: readonly Judged[]): Promise<void> {
    // Separate from the statement, because a change that was never sent is not in doubt.
    const client = await this.#database.commits
      .connect()
      .catch((error: unknown) => this.#retryLater(group.map(unjudged), error));
    if (client === undefined) return;
    const judged = group.filter((waiting) => this.#isWanted(waiting, undefined));
    if (judged.length === 0) {
      client.release();
      this.#markAnswered();
      return;
    }
    let outcomes: MemberOutcome[];
    try {
      outcomes = await this.#send(client, judged);
      client.release();
    } catch (error) {
      // The connection itself may be the cause, e.g. by an outdated plan.
      client.release(true);
      await this.#afterFailure(judged, error);
      return;
    }
    this.#backoff.reset();
    this.#markAnswered();
    // A change that lost a race keeps its place before later ones.
    this.#putBack(this.#settleAll(judged, outcomes), undefined);
  }

  #send(client: pg.ClientBase, judged: readonly Judged[]): Promise<MemberOutcome[]> {
    const members = judged.map(({ write, change: { actor, request, deadline } }) => ({
      write,
      actor,
      request,
      deadline,
    }));
    return this.#metrics.timed(members.length, () =>
      commitGroup(client, this.#database.clock, this.#replica, members, this.#limits),
    );
  }

  /** @returns the changes to judge again */
  #settleAll(judged: readonly Judged[], outcomes: readonly MemberOutcome[]): Waiting[] {
    const again: Waiting[] = [];
    let committed = false;
    for (const [place, waiting] of judged.entries()) {
      const outcome = outcomes[place];
      // The caller of a late member still waits, so an old clock reading made its deadline too early. The new reading
      // corrects it.
      if (outcome === undefined || outcome.kind === "stale" || outcome.kind === "late")
        again.push({ ...unjudged(waiting), failures: 0 });
      else if (outcome.kind === "guarded") waiting.resolve(waiting.guarded?.(outcome.until));
      else if (outcome.kind === "limited") this.#settleBy(waiting, () => waiting.limited?.(outcome.limit));
      else if (outcome.kind === "conflict") waiting.reject(conflictOf(waiting.write, outcome.constraint));
      else {
        committed ||= outcome.committed.revision !== null;
        this.#metrics.committed(waiting.write, outcome.committed);
        this.#settle(waiting, outcome.committed);
      }
    }
    if (committed) this.#onCommit();
    return again;
  }

  async #afterFailure(judged: readonly Judged[], error: unknown): Promise<void> {
    const kind = failureKind(error);
    const [only] = judged;
    if (isLockTimeout(error) && (await this.#quarantineLocked(judged))) return;
    if (!isPermanent(kind)) {
      for (const waiting of judged) {
        if (kind === "lost") waiting.inDoubt = true;
        waiting.failures = mayBeOneRow(error) ? waiting.failures + 1 : 0;
      }
      if (judged.every(({ failures }) => failures < MAX_FAILURES_OF_GROUP)) {
        await this.#retryLater(judged.map(unjudged), error);
        return;
      }
      if (judged.length === 1 && only !== undefined) {
        this.#startQuarantine(unjudged(only));
        return;
      }
    } else if (judged.length === 1 && only !== undefined) {
      this.#markAnswered();
      only.reject(refusalFor(error));
      return;
    }
    if (isPermanent(kind)) this.#markAnswered();
    // One member makes the group fail. Halving finds it in few steps and commits the others.
    const middle = Math.ceil(judged.length / 2);
    await this.#commit(judged.slice(0, middle));
    await this.#commit(judged.slice(middle));
  }

  /** Quarantines the agents whose rows another transaction has locked. False: there are none. */
  async #quarantineLocked(judged: readonly Judged[]): Promise<boolean> {
    const agentIds = judged.flatMap(({ write }) => (write.kind === "create" ? [] : [write.agent.agentId]));
    const lockedIds = await lockedAgents(this.#database.feed, agentIds);
    const isLocked = ({ write }: Judged): boolean => write.kind !== "create" && lockedIds.has(write.agent.agentId);
    const locked = judged.filter(isLocked);
    for (const waiting of locked) this.#startQuarantine(unjudged(waiting));
    if (locked.length === 0) return false;
    this.#putBack(judged.filter((waiting) => !isLocked(waiting)).map(unjudged), undefined);
    return true;
  }

  #settle(waiting: Judged, committed: Committed): void {
    this.#settleBy(waiting, () => waiting.result(committed));
  }

  #settleBy(waiting: Judged, result: () => unknown): void {
    try {
      waiting.resolve(result());
    } catch (error) {
      waiting.reject(error);
    }
  }
}

/** The same change, to be judged again by the current state of the database. */
function unjudged({ change, inDoubt, span, failures, resolve, reject }: Waiting): Waiting {
  return { change, known: undefined, inDoubt, span, failures, resolve, reject };
}

function repeated<Result>(change: Change<Result>, answer: FirstAnswer): Result {
  if (change.repeat === undefined || change.request?.fingerprint !== answer.fingerprint) {
    throw reusedRequestId(change.request?.id ?? "");
  }
  return change.repeat(answer);
}

function conflictOf(write: AgentWrite, constraint: string): Error {
  const refusal = write.kind === "create" ? conflictRefusal(constraint, wantedBy(write)) : undefined;
  return refusal ?? new Error(`a change violates ${constraint}`);
}

function wantedBy({ agentId, user }: AgentCreation): Wanted {
  return "id" in user ? { agentId, userId: user.id } : { agentId, username: user.username, email: user.email };
}
