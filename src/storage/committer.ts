import type { Agent } from "../domain/agent.ts";
import type { Call, RequestKey } from "../domain/directory.ts";
import type { Micros } from "../domain/time.ts";
import type { AgentCreation, AgentWrite, Committed } from "./agent-change.ts";
import { Backoff } from "./backoff.ts";
import { commitGroup, type FirstAnswer, FirstAnswers, type MemberOutcome, readAgents } from "./change-group.ts";
import { ChangeQueue } from "./change-queue.ts";
import type { Database } from "./database.ts";
import { databaseUnavailable, failureKind, isPermanent, refusalFor } from "./failures.ts";
import { conflictRefusal, reusedRequestId, tooManyChanges, type Wanted } from "./refusals.ts";

/** Members of one group at most: what one round trip carries in some tens of milliseconds. */
const LARGEST_GROUP = 1_000;
/**
 * Changes of one agent that callers may have waiting, and as many unary heartbeats of it. Each needs a group of its own, so this many take some tenths of a
 * second. The changes of the service itself are not counted: there are few of them, and they cannot be refused.
 */
export const MOST_CHANGES_OF_AGENT = 64;
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
  readonly #backoff = new Backoff(FIRST_RETRY_MS, LONGEST_RETRY_MS);

  /** `onCommit`: called after each group that gave a revision, so that watchers need not wait for a poll. */
  constructor(database: Database, replica: number, onCommit: () => void) {
    this.#database = database;
    this.#replica = replica;
    this.#onCommit = onCommit;
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
      if (change.deadline !== undefined && this.#queue.isFull(MOST_CHANGES_OF_AGENT, change)) {
        reject(tooManyChanges(change.agentId, MOST_CHANGES_OF_AGENT));
        return;
      }
      this.#queue.push({
        change,
        known: change.known,
        inDoubt: false,
        resolve: (result) => resolve(result as Result),
        reject,
      });
      this.#running ??= this.#run();
    });
  }

  /** How many changes wait. */
  get waiting(): number {
    return this.#queue.size;
  }

  /** For how many milliseconds the database has not taken what was given to it. */
  get stuckMs(): number {
    return this.#unansweredSince === undefined ? 0 : performance.now() - this.#unansweredSince;
  }

  /** Waits until all that was submitted is settled; what is submitted later is refused. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#running;
  }

  async #run(): Promise<void> {
    // One turn of the event loop, so that what arrives together shares the first group, too.
    await new Promise((resolve) => setImmediate(resolve));
    while (this.#queue.size > 0) {
      const group = this.#queue.takeGroup(LARGEST_GROUP);
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
    this.#answered();
    this.#running = undefined;
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
      const members = judged.map(({ write, change: { actor, request, deadline } }) => ({
        write,
        actor,
        request,
        deadline,
      }));
      outcomes = await commitGroup(client, this.#database.clock, this.#replica, members);
      client.release();
    } catch (error) {
      // Whatever is wrong may be the connection's own, as a plan that does not fit any more is.
      client.release(true);
      await this.#afterFailure(judged, error);
      return;
    }
    this.#backoff.reset();
    this.#answered();
    const again: Waiting[] = [];
    let committed = false;
    for (const [place, waiting] of judged.entries()) {
      const outcome = outcomes[place];
      // A late member whose caller still waits was measured by an old reading of the clock, which may lag behind: it is
      // measured again by the reading that came with this answer.
      if (outcome === undefined || outcome.kind === "stale" || outcome.kind === "late") again.push(anew(waiting));
      else if (outcome.kind === "guarded") waiting.resolve(waiting.guarded?.(outcome.until));
      else if (outcome.kind === "conflict") waiting.reject(conflictOf(waiting.write, outcome.constraint));
      else {
        committed ||= outcome.committed.revision !== null;
        this.#settle(waiting, outcome.committed);
      }
    }
    // Before what came later: a change that lost a race keeps its place.
    this.#putBack(again, undefined);
    if (committed) this.#onCommit();
  }

  async #afterFailure(judged: readonly Judged[], error: unknown): Promise<void> {
    const kind = failureKind(error);
    if (!isPermanent(kind)) {
      const again = judged.map(anew);
      if (kind === "lost") for (const waiting of again) waiting.inDoubt = true;
      await this.#later(again, error);
      return;
    }
    this.#answered();
    const [only] = judged;
    if (judged.length === 1 && only !== undefined) {
      only.reject(refusalFor(error));
      return;
    }
    // One member spoils the group. Halving finds it in few steps, and its neighbours are committed on the way.
    const middle = Math.ceil(judged.length / 2);
    await this.#commit(judged.slice(0, middle));
    await this.#commit(judged.slice(middle));
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
function anew({ change, inDoubt, resolve, reject }: Waiting): Waiting {
  return { change, known: undefined, inDoubt, resolve, reject };
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
