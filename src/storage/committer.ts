import { setMaxListeners } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";
import type { Micros } from "../contract/time.ts";
import type { Agent } from "../domain/agent.ts";
import type { Call, RequestKey } from "../domain/directory.ts";
import { Backoff } from "../scheduling/backoff.ts";
import { Semaphore } from "../scheduling/semaphore.ts";
import type { AgentCreation, AgentWrite, Committed } from "./agent-change.ts";
import {
  commitGroup,
  type FirstAnswer,
  FirstAnswers,
  lockedAgents,
  type MemberOutcome,
  readAgents,
} from "./change-group.ts";
import { ChangeQueue } from "./change-queue.ts";
import type { Database } from "./database.ts";
import { databaseUnavailable, failureKind, isLockTimeout, isPermanent, mayBeOneRow, refusalFor } from "./failures.ts";
import { conflictRefusal, reusedRequestId, tooManyChanges, type Wanted } from "./refusals.ts";

/** Members of one group at most: what one round trip carries in some tens of milliseconds. */
const LARGEST_GROUP = 1_000;
/**
 * Changes of one agent that callers may have waiting, and as many unary heartbeats of it. Each needs a group of its own, so this many take some tenths of a
 * second. The changes of the service itself are not counted: there are few of them, and they cannot be refused.
 */
export const MOST_CHANGES_OF_AGENT = 64;
/** So often in a row a group fails as a whole before it is looked for the member that spoils it. */
const MOST_FAILURES_OF_GROUP = 2;
/** Between two attempts for an agent that spoils its groups, in milliseconds. An attempt may wait for a lock for two seconds. */
const FIRST_PAUSE_APART_MS = 250;
const LONGEST_PAUSE_APART_MS = 2_000;
/** The longest that a timer can be set for. */
const WHENEVER_MS = 2 ** 31 - 1;
const FIRST_RETRY_MS = 20;
const LONGEST_RETRY_MS = 1_000;

export type Verdict<Result> =
  /** Nothing is to be written. */
  | { readonly kind: "done"; readonly result: Result }
  | {
      readonly kind: "write";
      readonly write: AgentWrite;
      readonly result: (committed: Committed) => Result;
      /** The end of a lease: it must not end before `until`. */
      readonly guarded?: (until: Micros) => Result;
    };

/** A change that somebody wants, before it is judged. */
export interface Change<Result> {
  /**
   * Which agent: changes of one `agentId` are made in the order they came, but its own reports sooner. `id` where an older
   * agent is not meant.
   */
  readonly agentId: string;
  readonly id?: bigint;
  /** The agent as the caller knows it, which spares the reading; a fence catches it where it is outdated. */
  readonly known?: Agent;
  readonly actor: string;
  readonly request?: RequestKey | undefined;
  /** The answer to a repetition of a request. */
  readonly repeat?: (answer: FirstAnswer) => Result;
  /** The agent's own report: it waits for at most one change of somebody else. */
  readonly report?: boolean;
  /**
   * From then on it must not be committed, by `performance.now()`. Undefined: it must happen, whenever the database is
   * back.
   */
  readonly deadline?: number;
  /** Who asked for it. A change that was not sent to the database when the call ended is dropped. */
  readonly call?: Pick<Call, "over">;
  /**
   * Decides, by the agent as it is (undefined: there is none) and the database's clock. Called again whenever somebody
   * else was faster. Throws a `Refusal` to refuse.
   */
  judge(agent: Agent | undefined, now: Micros): Verdict<Result>;
}

interface Waiting {
  readonly change: Change<unknown>;
  known: Agent | undefined;
  /** A first attempt was lost with its connection: it may have been committed. */
  inDoubt: boolean;
  /** How many attempts have failed, one after the other, though the database was there. */
  failures: number;
  resolve(result: unknown): void;
  reject(error: unknown): void;
}

interface Judged extends Waiting {
  readonly write: AgentWrite;
  readonly result: (committed: Committed) => unknown;
  readonly guarded: ((until: Micros) => unknown) | undefined;
}

/**
 * Every revision of a replica comes from here: reports, services' changes, expiry, recovery, creations. Waiting changes
 * share a transaction, one group is in flight, and a member that fails does not fail its neighbours.
 */
export class Committer {
  readonly #database: Database;
  readonly #replica: number;
  readonly #onCommit: () => void;
  readonly #queue = new ChangeQueue<Waiting>((waiting) => !this.#isWanted(waiting, undefined));
  #running: Promise<void> | undefined;
  #closed = false;
  /** Since when the database has been asked and has not carried out what it was asked for. */
  #unansweredSince: number | undefined;
  /** The changes of agents of which one failed alone, in their order: the other agents do not wait for them. */
  readonly #apart = new Map<string, Waiting[]>();
  readonly #runningApart = new Set<Promise<void>>();
  /** One at a time: each may keep a connection until a lock times out. */
  readonly #placeApart = new Semaphore(1);
  readonly #closing = new AbortController();
  readonly #backoff = new Backoff(FIRST_RETRY_MS, LONGEST_RETRY_MS);

  /** `onCommit`: called after each group that gave a revision, so that watchers need not wait for a poll. */
  constructor(database: Database, replica: number, onCommit: () => void) {
    this.#database = database;
    this.#replica = replica;
    this.#onCommit = onCommit;
    // Each agent that waits apart listens.
    setMaxListeners(0, this.#closing.signal);
  }

  /**
   * Resolves when the change is committed (or needs no writing), rejects when it is refused.
   *
   * @throws Refusal (rejects) `LIMIT_EXCEEDED` for a change with a deadline, where too many of its agent wait;
   * `DATABASE_UNAVAILABLE` where the deadline passed or the call ended, which says whether the change may have been made
   */
  submit<Result>(change: Change<Result>): Promise<Result> {
    return new Promise<Result>((resolve, reject) => {
      if (this.#closed) {
        reject(databaseUnavailable(undefined));
        return;
      }
      if (change.deadline !== undefined && this.#isFull(change)) {
        reject(tooManyChanges(change.agentId, MOST_CHANGES_OF_AGENT));
        return;
      }
      this.#queue.push({
        change,
        known: change.known,
        inDoubt: false,
        failures: 0,
        resolve: (result) => resolve(result as Result),
        reject,
      });
      this.#running ??= this.#run();
    });
  }

  /** How many changes wait. */
  get waiting(): number {
    let size = this.#queue.size;
    for (const changes of this.#apart.values()) size += changes.length;
    return size;
  }

  /** For how many milliseconds the database has not taken what was given to it. */
  get stuckMs(): number {
    return this.#unansweredSince === undefined ? 0 : performance.now() - this.#unansweredSince;
  }

  /** Waits until all that was submitted is settled; what is submitted later is refused. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#closing.abort();
    await this.#running;
    await Promise.all(this.#runningApart);
  }

  #isFull(change: Change<unknown>): boolean {
    const apart = this.#apart.get(change.agentId)?.length ?? 0;
    return apart >= MOST_CHANGES_OF_AGENT || this.#queue.isFull(MOST_CHANGES_OF_AGENT, change);
  }

  async #run(): Promise<void> {
    // One turn of the event loop, so that what arrives together shares the first group, too.
    await new Promise((resolve) => setImmediate(resolve));
    while (this.#queue.size > 0) {
      const group = this.#queue.takeGroup(LARGEST_GROUP).filter((waiting) => !this.#isApart(waiting));
      if (group.length === 0) continue;
      try {
        await this.#attempt(group);
      } catch (error) {
        if (isPermanent(failureKind(error))) {
          this.#answered();
          for (const waiting of group) waiting.reject(refusalFor(error));
        } else await this.#later(group, error);
      }
    }
    // Where several agents wait apart and nothing was committed since, it is rather the database.
    if (this.#apart.size < 2) this.#answered();
    this.#running = undefined;
  }

  /** Puts a change behind the others of its agent, where these wait apart. */
  #isApart(waiting: Waiting): boolean {
    const apart = this.#apart.get(waiting.change.agentId);
    apart?.push(waiting);
    return apart !== undefined;
  }

  /** The agent's changes are made one by one from now on, beside the groups, until one of them is settled. */
  #setApart(waiting: Waiting): void {
    const { agentId } = waiting.change;
    const apart = this.#apart.get(agentId);
    if (apart !== undefined) {
      apart.unshift(waiting);
      return;
    }
    this.#apart.set(agentId, [waiting]);
    const running = this.#runApart(agentId).finally(() => this.#runningApart.delete(running));
    this.#runningApart.add(running);
  }

  async #runApart(agentId: string): Promise<void> {
    const changes = this.#apart.get(agentId) ?? [];
    const pauses = new Backoff(FIRST_PAUSE_APART_MS, LONGEST_PAUSE_APART_MS);
    while (changes.length > 0 && !this.#closed) {
      await sleep(pauses.next(), undefined, { signal: this.#closing.signal }).catch(() => undefined);
      changes.splice(0, changes.length, ...changes.filter((waiting) => this.#isWanted(waiting, undefined)));
      using place = await this.#placeApart.enter(performance.now() + WHENEVER_MS);
      const first = place === undefined ? undefined : changes.shift();
      if (first === undefined) continue;
      const outcome = await this.#attemptApart(first);
      if (outcome === "written") break;
      if (outcome !== "settled") changes.unshift(outcome);
    }
    this.#apart.delete(agentId);
    // Those behind it share groups again, where the database took it.
    if (this.#closed) for (const { reject, inDoubt } of changes) reject(databaseUnavailable(undefined, inDoubt));
    else if (changes.length > 0) {
      this.#queue.putBack(changes);
      this.#running ??= this.#run();
    }
  }

  /** @returns the change where it is to be tried again. Where nothing was to be written, the agent may still be locked. */
  async #attemptApart(waiting: Waiting): Promise<Waiting | "written" | "settled"> {
    try {
      const agents = await this.#readUnknown([waiting]);
      const judged = this.#judge(waiting, agents, await this.#readAnswers([waiting]));
      if (judged === undefined) return "settled";
      // Of another pool: this may take long, and those of the groups are few.
      const client = await this.#database.feed.connect();
      try {
        const [again] = this.#settleAll([judged], await this.#send(client, [judged]));
        client.release();
        this.#answered();
        return again ?? "written";
      } catch (error) {
        client.release(true);
        if (failureKind(error) === "lost") waiting.inDoubt = true;
        throw error;
      }
    } catch (error) {
      if (!isPermanent(failureKind(error))) return anew(waiting);
      waiting.reject(refusalFor(error));
      return "settled";
    }
  }

  #answered(): void {
    this.#unansweredSince = undefined;
  }

  /** The database is away or busy: the members keep their places, and each waits as long as it may. */
  async #later(group: readonly Waiting[], error: unknown): Promise<void> {
    this.#putBack(group, error);
    await new Promise((resolve) => setTimeout(resolve, this.#backoff.next()));
  }

  #putBack(group: readonly Waiting[], error: unknown): void {
    const isStopping = ({ change }: Waiting): boolean => this.#closed && change.deadline === undefined;
    for (const waiting of group) if (isStopping(waiting)) waiting.reject(databaseUnavailable(error, waiting.inDoubt));
    this.#queue.putBack(group.filter((waiting) => !isStopping(waiting) && this.#isWanted(waiting, error)));
  }

  /** Whether anybody waits for the change. Asked before each step, since each may take as long as the database does. */
  #isWanted(waiting: Waiting, error: unknown): boolean {
    const { deadline, call } = waiting.change;
    const isWanted = call?.over !== true && (deadline === undefined || performance.now() < deadline);
    if (!isWanted) waiting.reject(databaseUnavailable(error, waiting.inDoubt));
    return isWanted;
  }

  async #attempt(group: readonly Waiting[]): Promise<void> {
    this.#unansweredSince ??= performance.now();
    const agents = await this.#readUnknown(group);
    // After the agents: whoever sees what an earlier attempt changed also sees its answer.
    const answers = await this.#readAnswers(group);
    const judged: Judged[] = [];
    for (const waiting of group) {
      if (!this.#isWanted(waiting, undefined)) continue;
      const ready = this.#judge(waiting, agents, answers);
      if (ready !== undefined) judged.push(ready);
    }
    if (judged.length > 0) await this.#commit(judged);
    else this.#answered();
  }

  async #readUnknown(group: readonly Waiting[]): Promise<Map<string, Agent>> {
    const unknown = group.filter((waiting) => waiting.known === undefined);
    if (unknown.length === 0) return new Map();
    const ids = unknown.flatMap(({ change }) => (change.id === undefined ? [] : [change.id]));
    const agentIds = unknown.flatMap(({ change }) => (change.id === undefined ? [change.agentId] : []));
    const agents = await readAgents(this.#database.commits, this.#database.clock, { ids, agentIds });
    return new Map(agents.map((agent) => [agent.agentId, agent]));
  }

  #readAnswers(group: readonly Waiting[]): Promise<FirstAnswers> {
    const requests = group.flatMap(({ change }) => (change.request === undefined ? [] : [change.request]));
    return FirstAnswers.read(this.#database.commits, requests);
  }

  #judge(waiting: Waiting, agents: Map<string, Agent>, answers: FirstAnswers): Judged | undefined {
    const { change } = waiting;
    try {
      const answer = change.request === undefined ? undefined : answers.of(change.request);
      if (answer !== undefined) {
        waiting.resolve(repeated(change, answer));
        return undefined;
      }
      let agent = waiting.known ?? agents.get(change.agentId);
      if (agent !== undefined && change.id !== undefined && agent.id !== change.id) agent = undefined;
      if (waiting.inDoubt && change.request === undefined && change.deadline !== undefined) {
        // A service that gave no request_id could take its own first attempt for somebody else's.
        throw databaseUnavailable(undefined, true);
      }
      const verdict = change.judge(agent, this.#database.clock.now());
      if (verdict.kind === "write") {
        return { ...waiting, write: verdict.write, result: verdict.result, guarded: verdict.guarded };
      }
      waiting.resolve(verdict.result);
    } catch (error) {
      waiting.reject(error);
    }
    return undefined;
  }

  async #commit(group: readonly Judged[]): Promise<void> {
    // Apart from the statement: what was never sent is not in doubt.
    const client = await this.#database.commits
      .connect()
      .catch((error: unknown) => this.#later(group.map(anew), error));
    if (client === undefined) return;
    const judged = group.filter((waiting) => this.#isWanted(waiting, undefined));
    if (judged.length === 0) {
      client.release();
      this.#answered();
      return;
    }
    let outcomes: MemberOutcome[];
    try {
      outcomes = await this.#send(client, judged);
      client.release();
    } catch (error) {
      // Whatever is wrong may be the connection's own, as a plan that does not fit any more is.
      client.release(true);
      await this.#afterFailure(judged, error);
      return;
    }
    this.#backoff.reset();
    this.#answered();
    // Before what came later: a change that lost a race keeps its place.
    this.#putBack(this.#settleAll(judged, outcomes), undefined);
  }

  #send(client: pg.ClientBase, judged: readonly Judged[]): Promise<MemberOutcome[]> {
    const members = judged.map(({ write, change: { actor, request, deadline } }) => ({
      write,
      actor,
      request,
      deadline,
    }));
    return commitGroup(client, this.#database.clock, this.#replica, members);
  }

  /** @returns those that are to be judged again */
  #settleAll(judged: readonly Judged[], outcomes: readonly MemberOutcome[]): Waiting[] {
    const again: Waiting[] = [];
    let committed = false;
    for (const [place, waiting] of judged.entries()) {
      const outcome = outcomes[place];
      // A late member whose caller still waits was measured by an old reading of the clock, which may lag behind: it is
      // measured again by the reading that came with this answer.
      if (outcome === undefined || outcome.kind === "stale" || outcome.kind === "late")
        again.push({ ...anew(waiting), failures: 0 });
      else if (outcome.kind === "guarded") waiting.resolve(waiting.guarded?.(outcome.until));
      else if (outcome.kind === "conflict") waiting.reject(conflictOf(waiting.write, outcome.constraint));
      else {
        committed ||= outcome.committed.revision !== null;
        this.#settle(waiting, outcome.committed);
      }
    }
    if (committed) this.#onCommit();
    return again;
  }

  async #afterFailure(judged: readonly Judged[], error: unknown): Promise<void> {
    const kind = failureKind(error);
    const [only] = judged;
    if (isLockTimeout(error) && (await this.#setLockedApart(judged))) return;
    if (!isPermanent(kind)) {
      for (const waiting of judged) {
        if (kind === "lost") waiting.inDoubt = true;
        waiting.failures = mayBeOneRow(error) ? waiting.failures + 1 : 0;
      }
      if (judged.every(({ failures }) => failures < MOST_FAILURES_OF_GROUP)) {
        await this.#later(judged.map(anew), error);
        return;
      }
      if (judged.length === 1 && only !== undefined) {
        this.#setApart(anew(only));
        return;
      }
    } else if (judged.length === 1 && only !== undefined) {
      this.#answered();
      only.reject(refusalFor(error));
      return;
    }
    if (isPermanent(kind)) this.#answered();
    // One member spoils the group. Halving finds it in few steps, and its neighbours are committed on the way.
    const middle = Math.ceil(judged.length / 2);
    await this.#commit(judged.slice(0, middle));
    await this.#commit(judged.slice(middle));
  }

  /** Sets those apart whose rows somebody else has locked. False: it is not known to be such a row. */
  async #setLockedApart(judged: readonly Judged[]): Promise<boolean> {
    const agentIds = judged.flatMap(({ write }) => (write.kind === "create" ? [] : [write.agent.agentId]));
    const lockedIds = await lockedAgents(this.#database.feed, agentIds);
    const isLocked = ({ write }: Judged): boolean => write.kind !== "create" && lockedIds.has(write.agent.agentId);
    const locked = judged.filter(isLocked);
    for (const waiting of locked) this.#setApart(anew(waiting));
    if (locked.length === 0) return false;
    this.#putBack(judged.filter((waiting) => !isLocked(waiting)).map(anew), undefined);
    return true;
  }

  #settle(waiting: Judged, committed: Committed): void {
    try {
      waiting.resolve(waiting.result(committed));
    } catch (error) {
      waiting.reject(error);
    }
  }
}

/** The same change, to be judged by what the database says now. */
function anew({ change, inDoubt, failures, resolve, reject }: Waiting): Waiting {
  return { change, known: undefined, inDoubt, failures, resolve, reject };
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
