import type { TransitionCause } from "../../common/contract/enum-names.ts";
import type { Agent, Exhaustion, Transition, User } from "../../src/domain/agent.ts";
import { Refusal } from "../../src/domain/errors.ts";
import { predicateOf } from "../../src/domain/filter.ts";
import type { ParsedBeat } from "../../src/domain/heartbeat.ts";
import type { Pace } from "../../src/domain/lease.ts";
import type { BeatResult, SessionOutput } from "../../src/domain/message-to-claw.ts";
import type {
  AgentKey,
  Backend,
  FleetWatchQuery,
  HeartbeatSession,
  Incident,
  IncidentQuery,
  Mutation,
  Page,
  PageQuery,
  SessionListener,
  SessionOptions,
  TransitionQuery,
  UserKey,
  WatchMessage,
  WatchQuery,
} from "../../src/rpc/handlers/backend.ts";

/** A start instant: 2026-09-21T14:13:20.123457Z, finer than milliseconds so that rounding would show. */
export const FAKE_NOW = 1_790_000_000_123_457;
export const FAKE_PACE: Pace = { intervalMs: 9_500, leaseMs: 30_000 };

/** The calls of a handler, so that a test can check them. */
export interface FakeCalls {
  readonly mutations: Mutation[];
  readonly leasesMs: number[];
  readonly beats: ParsedBeat[];
  readonly statuses: { readonly word: unknown; readonly expectedRevision: bigint | undefined }[];
  readonly watches: WatchQuery[];
  readonly fleetWatches: FleetWatchQuery[];
  readonly transitions: TransitionQuery[];
  readonly incidents: IncidentQuery[];
}

export interface FakeBackend extends Backend {
  readonly calls: FakeCalls;
  /** All sessions that were opened, the newest last. */
  readonly sessions: FakeSession[];
  /** The messages of a watch; then it waits for the signal, or throws `watchFailure`. */
  readonly watchMessages: WatchMessage[];
  /** The oldest first. */
  readonly incidents: Incident[];
  watchFailure: Refusal | undefined;
  /** The number of watches that wait for their signal now. */
  watching: number;
  /** Whether sessions acknowledge each message at once; otherwise the test sends the outputs, by `say`. */
  acknowledging: boolean;
  /** Creates an agent, or changes one, and records the transition. */
  put(agentId: string, change?: Partial<Agent>): Agent;
}

/** The service in memory: complete enough for tests of the transport. */
export function createFakeBackend(): FakeBackend {
  const users = new Map<bigint, User>();
  const agents = new Map<string, Agent>();
  const log: Transition[] = [];
  let lastId = 0n;
  const calls: FakeCalls = {
    mutations: [],
    leasesMs: [],
    beats: [],
    statuses: [],
    watches: [],
    fleetWatches: [],
    transitions: [],
    incidents: [],
  };

  function record(before: Agent | undefined, after: Agent | undefined, cause: TransitionCause, mutation?: Mutation) {
    const agent = after ?? before;
    if (agent === undefined) throw new TypeError("a transition of nothing");
    const transition: Transition = {
      revision: nextRevision(),
      id: agent.id,
      agentId: agent.agentId,
      userId: agent.userId,
      fromStatus: before?.status ?? null,
      toStatus: after?.status ?? null,
      fromClaw: before?.clawIdentifier ?? null,
      toClaw: after?.clawIdentifier ?? null,
      cause,
      actor: mutation?.actor ?? "server",
      occurredAt: FAKE_NOW,
      requestId: mutation?.request?.id ?? null,
      incidentId: null,
      previousRevision: before?.revision ?? null,
      wake: null,
      openWake: null,
      exhaustion: agent.exhaustion,
      createdAt: agent.createdAt,
      statusChangedAt: agent.statusChangedAt,
    };
    log.push(transition);
    if (mutation !== undefined) calls.mutations.push(mutation);
    return transition.revision;
  }

  const nextRevision = (): bigint => BigInt(log.length) + 1n;

  function save(agentId: string, change: Partial<Agent>, cause: TransitionCause, mutation?: Mutation): Agent {
    const before = agents.get(agentId);
    const after = { ...(before ?? newAgent(agentId)), ...change, revision: nextRevision() };
    agents.set(agentId, after);
    record(before, after, cause, mutation);
    return after;
  }

  function newAgent(agentId: string): Agent {
    return {
      id: ++lastId,
      userId: 1n,
      agentId,
      clawIdentifier: "claw-1",
      status: "idle",
      exhaustion: null,
      backoff: { steps: 0, lastAt: null },
      hold: null,
      createdAt: FAKE_NOW,
      statusChangedAt: FAKE_NOW,
      revision: 0n,
      epoch: 0n,
      held: false,
      replicaId: null,
      suspectSince: null,
      wakes: null,
      lapsesTo: null,
      lastHeartbeat: null,
      leaseExpiresAt: FAKE_NOW + 60_000_000,
    };
  }

  function agentBy(key: AgentKey): Agent {
    const found = "agentId" in key ? agents.get(key.agentId) : agentOfUser(key.userId);
    if (found !== undefined) return found;
    throw new Refusal("AGENT_NOT_FOUND", "There is no such agent.");
  }

  const agentOfUser = (userId: bigint): Agent | undefined => [...agents.values()].find((one) => one.userId === userId);

  function userBy(key: UserKey): User {
    const found = [...users.values()].map(withAgent).find((user) => {
      if ("id" in key) return user.id === key.id;
      return "username" in key ? user.username === key.username : user.agentId === key.agentId;
    });
    if (found !== undefined) return found;
    throw new Refusal("USER_NOT_FOUND", "There is no such user.");
  }

  const withAgent = (user: User): User => ({ ...user, agentId: agentOfUser(user.id)?.agentId ?? null });

  const beat = (parsed: ParsedBeat, sequence: bigint, beatIndex: number): BeatResult => {
    calls.beats.push(parsed);
    const { agentId } = parsed;
    const known = agents.get(agentId);
    const none = {
      kind: "result",
      agentId,
      sequence,
      beatIndex,
      status: null,
      exhaustion: null,
      revision: null,
      refusal: null,
    } as const;
    if ("refusal" in parsed) return { ...none, refusal: parsed.refusal };
    if (known === undefined) {
      return { ...none, refusal: new Refusal("AGENT_NOT_FOUND", "There is no such agent: create it first.") };
    }
    const status = parsed.leaving ? "offline" : parsed.beat.report;
    const after = typeof status === "string" && status !== known.status ? save(agentId, { status }, "report") : known;
    return { ...none, status: after.status, exhaustion: after.exhaustion, revision: after.revision };
  };

  const backend: FakeBackend = {
    calls,
    sessions: [],
    watchMessages: [],
    incidents: [],
    watchFailure: undefined,
    watching: 0,
    acknowledging: true,
    put: (agentId, change = {}) => save(agentId, change, agents.has(agentId) ? "service" : "created"),

    tokens: { issue: noTokens, list: noTokens, revoke: noTokens },
    wakes: {
      wake: noWakes,
      cancel: noWakes,
      get: noWakes,
      list: noWakes,
      pause: noWakes,
      resume: noWakes,
      pauses: noWakes,
    },
    wakeFollowing: {
      // biome-ignore lint/correctness/useYield: it never has a message
      async *follow() {
        await noWakes();
      },
    },

    users: {
      async create({ username, email, displayName, agent }, mutation) {
        if ([...users.values()].some((user) => user.username === username)) {
          throw new Refusal("USERNAME_TAKEN", "The username is taken: choose another one.");
        }
        const user: User = { id: ++lastId, username, email, displayName, agentId: null, createdAt: FAKE_NOW };
        users.set(user.id, user);
        if (agent === undefined) {
          calls.mutations.push(mutation);
          return { user, agent: undefined };
        }
        const { agentId, clawIdentifier } = agent;
        const made = save(agentId, { userId: user.id, clawIdentifier }, "created", mutation);
        return { user: withAgent(user), agent: made };
      },
      get: async (key) => userBy(key),
      list: async (query) => pageOf([...users.values()].map(withAgent), (user) => user.id, query),
      async update(id, change, mutation) {
        const user = { ...userBy({ id }), ...change };
        users.set(id, user);
        calls.mutations.push(mutation);
        return user;
      },
      async delete(id, mutation) {
        const { agentId } = userBy({ id });
        if (agentId !== null) await backend.agents.delete(agentId, mutation);
        users.delete(id);
      },
    },

    agents: {
      async create({ agentId, userId, clawIdentifier }, mutation) {
        if (agents.has(agentId)) throw new Refusal("AGENT_ID_TAKEN", "The agent_id is taken.");
        return save(agentId, { userId, clawIdentifier }, "created", mutation);
      },
      get: async (key) => agentBy(key),
      getAll: async (ids) => ids.map((agentId) => agentBy({ agentId })),
      async list(filter, query) {
        const passing = [...agents.values()].filter(predicateOf(filter));
        return { ...pageOf(passing, (agent) => agent.id, query), revision: BigInt(log.length) };
      },
      async fleet(filter) {
        const statuses = new Map<Agent["status"], bigint>();
        const claws = new Map<string, { statuses: Map<Agent["status"], bigint> }>();
        for (const { status, clawIdentifier } of [...agents.values()].filter(predicateOf(filter))) {
          const claw = claws.get(clawIdentifier) ?? { statuses: new Map() };
          claws.set(clawIdentifier, claw);
          for (const tally of [statuses, claw.statuses]) tally.set(status, (tally.get(status) ?? 0n) + 1n);
        }
        return { statuses, claws, brake: { engagedAt: null, heldBack: 0n }, revision: BigInt(log.length) };
      },
      async move(agentId, clawIdentifier, mutation) {
        agentBy({ agentId });
        return save(agentId, { clawIdentifier }, "moved", mutation);
      },
      async updateStatus(agentId, word, expectedRevision, mutation) {
        const agent = agentBy({ agentId });
        calls.statuses.push({ word, expectedRevision });
        if (expectedRevision !== undefined && expectedRevision !== agent.revision) {
          const metadata = { revision: String(agent.revision) };
          throw new Refusal("REVISION_MISMATCH", "The agent has changed: read it again.", { metadata });
        }
        if (typeof word.status === "string") return save(agentId, { status: word.status }, "service", mutation);
        const { reason, recoveryAt = FAKE_NOW + 30_000_000 } = word.status.exhausted;
        const exhaustion: Exhaustion = { reason, exhaustedAt: FAKE_NOW, recoveryAt };
        return save(agentId, { status: "exhausted", exhaustion }, "service", mutation);
      },
      async delete(agentId, mutation) {
        const agent = agentBy({ agentId });
        agents.delete(agentId);
        return record(agent, undefined, "deleted", mutation);
      },
      async incidents(query) {
        calls.incidents.push(query);
        const newest = query.after ?? BigInt(backend.incidents.length) + 1n;
        const rows = backend.incidents
          .map((incident, index) => ({ incident, number: BigInt(index) + 1n }))
          .filter(({ number }) => number < newest)
          .reverse();
        const page = cut(rows, ({ number }) => number, query.limit);
        return { rows: page.rows.map(({ incident }) => incident), next: page.next };
      },
      async transitions(query) {
        const { agentId, afterRevision, newestFirst, after, upTo = BigInt(log.length), limit } = query;
        calls.transitions.push(query);
        const inOrder = newestFirst ? [...log].reverse() : log;
        const rows = inOrder.filter(
          (one) =>
            (agentId === undefined || one.agentId === agentId) &&
            one.revision > afterRevision &&
            one.revision <= upTo &&
            (after === undefined || (newestFirst ? one.revision < after : one.revision > after)),
        );
        return { ...cut(rows, (one) => one.revision, limit), upTo };
      },
    },

    heartbeats: {
      pace: () => FAKE_PACE,
      openSession(options, listener) {
        const session = new FakeSession(options, listener, beat, () => backend.acknowledging);
        backend.sessions.push(session);
        return session;
      },
      async beat(beats, { leaseMs }) {
        calls.leasesMs.push(leaseMs);
        return beats.map((one, index) => beat(one, 0n, index));
      },
    },

    watches: {
      async *watch(query, signal) {
        calls.watches.push(query);
        yield* backend.watchMessages;
        if (backend.watchFailure !== undefined) throw backend.watchFailure;
        backend.watching++;
        await new Promise<void>((resolve) => {
          if (signal.aborted) resolve();
          else signal.addEventListener("abort", () => resolve(), { once: true });
        });
        backend.watching--;
      },
    },

    fleetWatches: {
      async *watch(query, signal) {
        calls.fleetWatches.push(query);
        const { claws, brake, revision, ...all } = await backend.agents.fleet(query.filter);
        yield { revision, all, claws, brake };
        if (backend.watchFailure !== undefined) throw backend.watchFailure;
        await new Promise<void>((resolve) => {
          if (signal.aborted) resolve();
          else signal.addEventListener("abort", () => resolve(), { once: true });
        });
      },
    },
  };
  return backend;
}

function pageOf<Row>(rows: readonly Row[], key: (row: Row) => bigint, { after, limit }: PageQuery): Page<Row> {
  return cut(after === undefined ? rows : rows.filter((row) => key(row) > after), key, limit);
}

function cut<Row>(rows: readonly Row[], key: (row: Row) => bigint, limit: number): Page<Row> {
  const page = rows.slice(0, limit);
  const last = page.at(-1);
  return { rows: page, next: last === undefined || rows.length <= limit ? undefined : key(last) };
}

/** A session that applies its messages at once, or leaves the outputs to the test. */
export class FakeSession implements HeartbeatSession {
  readonly options: SessionOptions;
  readonly submitted: { readonly sequence: bigint; readonly beats: readonly ParsedBeat[] }[] = [];
  finished = false;
  closed = false;
  readonly #beat: (beat: ParsedBeat, sequence: bigint, index: number) => BeatResult;
  readonly #acknowledging: () => boolean;
  readonly #outputs: SessionOutput[] = [];
  /** The newest message that is not acknowledged yet; 0 when there is none. */
  #owed = 0n;
  #failure: Error | undefined;
  readonly #listener: SessionListener;

  constructor(
    options: SessionOptions,
    listener: SessionListener,
    beat: (beat: ParsedBeat, sequence: bigint, index: number) => BeatResult,
    acknowledging: () => boolean,
  ) {
    this.options = options;
    this.#listener = listener;
    this.#beat = beat;
    this.#acknowledging = acknowledging;
  }

  submit(sequence: bigint, beats: readonly ParsedBeat[]): boolean {
    this.submitted.push({ sequence, beats });
    this.#owed = sequence;
    if (!this.#acknowledging()) return true;
    const results = beats.map((beat, index) => this.#beat(beat, sequence, index));
    this.say({ acknowledgedSequence: sequence, messages: results.filter((one) => one.refusal !== null) });
    return true;
  }

  say(output: Partial<SessionOutput>): void {
    this.#outputs.push({ acknowledgedSequence: 0n, messages: [], ...output });
    if (output.acknowledgedSequence === this.#owed) this.#owed = 0n;
    queueMicrotask(() => this.#listener.onOutput());
  }

  fail(error: Error): void {
    this.#failure = error;
    queueMicrotask(() => this.#listener.onOutput());
  }

  take(): SessionOutput | undefined {
    if (this.closed) return undefined;
    if (this.#failure !== undefined) throw this.#failure;
    return this.#outputs.shift();
  }

  get over(): boolean {
    return this.closed || (this.finished && this.#owed === 0n && this.#outputs.length === 0);
  }

  finish(): void {
    this.finished = true;
    queueMicrotask(() => this.#listener.onOutput());
  }

  close(): void {
    this.closed = true;
    queueMicrotask(() => this.#listener.onOutput());
  }
}

const noWakes = (): Promise<never> => Promise.reject(new Error("wakes are not part of this fake"));
const noTokens = (): Promise<never> => Promise.reject(new Error("tokens are not part of this fake"));
