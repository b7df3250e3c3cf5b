import type { MessageInitShape } from "@bufbuild/protobuf";
import type { AgentStatus } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import type {
  AgentBeatResult,
  AgentChange,
  HeartbeatRequestSchema,
  HeartbeatResponse,
  StatusCount,
  WatchAgentsRequestSchema,
  WatchAgentsResponse,
  WatchFleetRequestSchema,
  WatchFleetResponse,
} from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { present } from "./contract-steps.ts";
import type { ProtocolClients } from "./protocol-clients.ts";
import { PushedInput } from "./pushed-input.ts";

const PATIENCE_MS = 40_000;

/**
 * Records the messages of a stream, so that a test can wait for them in any order. Disposal cancels the call.
 */
export class StreamReader<T> implements AsyncDisposable {
  readonly messages: T[] = [];
  ended = false;
  error: unknown;
  readonly #abort = new AbortController();
  readonly #done: Promise<void>;
  #wake: (() => void)[] = [];

  constructor(open: (signal: AbortSignal) => AsyncIterable<T>) {
    this.#done = this.#read(open(this.#abort.signal));
  }

  /** Waits until the recorded messages fulfil a condition; fails at once when the stream ends before. */
  async until(what: string, holds: () => boolean): Promise<void> {
    await this.#wait(what, () => {
      if (holds()) return true;
      if (this.ended) throw new Error(`the stream ended before: ${what}`, { cause: this.error });
      return false;
    });
  }

  /** Waits for the end: resolves after OK, rejects with any error. */
  async end(): Promise<void> {
    await this.#wait("the stream's end", () => this.ended);
    if (this.error !== undefined) throw this.error;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#abort.abort();
    await this.#done;
  }

  async #wait(what: string, holds: () => boolean): Promise<void> {
    const deadline = performance.now() + PATIENCE_MS;
    while (!holds()) {
      const left = deadline - performance.now();
      if (left <= 0) throw new Error(`not within ${PATIENCE_MS} ms: ${what} (after ${this.messages.length} messages)`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#wake.push(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
  }

  async #read(stream: AsyncIterable<T>): Promise<void> {
    try {
      for await (const message of stream) {
        this.messages.push(message);
        this.#tell();
      }
    } catch (error) {
      this.error = error;
    }
    this.ended = true;
    this.#tell();
  }

  #tell(): void {
    for (const wake of this.#wake.splice(0)) wake();
  }
}

/** A watch, and its messages so far. */
export class Watch extends StreamReader<WatchAgentsResponse> {
  constructor({ agents }: Pick<ProtocolClients, "agents">, request: MessageInitShape<typeof WatchAgentsRequestSchema>) {
    super((signal) => agents.watchAgents(request, { signal }));
  }

  get changes(): readonly AgentChange[] {
    return this.messages.flatMap(({ changes }) => changes);
  }

  /** The revision to resume from. */
  get revision(): bigint {
    return this.messages.at(-1)?.revision ?? 0n;
  }

  get complete(): boolean {
    return this.messages.some(({ bookmark }) => bookmark?.snapshotComplete === true);
  }

  async untilComplete(): Promise<void> {
    await this.until("the snapshot is complete", () => this.complete);
  }

  /** Waits for the next change without comparing it. */
  async change(index: number): Promise<AgentChange> {
    await this.until(`change ${index}`, () => this.changes.length > index);
    return present(this.changes[index]);
  }
}

/** A watch of the fleet's counts, and its messages so far. */
export class FleetWatch extends StreamReader<WatchFleetResponse> {
  constructor({ agents }: Pick<ProtocolClients, "agents">, request: MessageInitShape<typeof WatchFleetRequestSchema>) {
    super((signal) => agents.watchFleet(request, { signal }));
  }

  get complete(): boolean {
    return this.messages.some(({ revision }) => revision > 0n);
  }

  async untilComplete(): Promise<void> {
    await this.until("the state is complete", () => this.complete);
  }

  /** The counts by claw, as a client keeps them: status by status, in the order of the contract. */
  get claws(): ReadonlyMap<string, readonly (readonly [AgentStatus, bigint])[]> {
    const claws = new Map<string, readonly (readonly [AgentStatus, bigint])[]>();
    for (const { clawIdentifier, statuses } of this.messages.flatMap((message) => message.claws)) {
      if (statuses.length === 0) claws.delete(clawIdentifier);
      else claws.set(clawIdentifier, countsOf(statuses));
    }
    return claws;
  }

  /** The counts of all agents. */
  get all(): readonly (readonly [AgentStatus, bigint])[] {
    return countsOf(this.messages.at(-1)?.statuses ?? []);
  }
}

function countsOf(statuses: readonly StatusCount[]): readonly (readonly [AgentStatus, bigint])[] {
  return statuses.map(({ status, count }) => [status, count]);
}

type HeartbeatInit = MessageInitShape<typeof HeartbeatRequestSchema>;

/** A heartbeat stream. Numbers its messages, unless they bring numbers of their own. */
export class HeartbeatStream extends StreamReader<HeartbeatResponse> {
  readonly input: PushedInput<HeartbeatInit>;
  #sequence = 0n;

  constructor({ agents }: Pick<ProtocolClients, "agents">) {
    const input = new PushedInput<HeartbeatInit>();
    super((signal) => agents.heartbeat(input, { signal }));
    this.input = input;
  }

  get acknowledged(): bigint {
    return this.messages.at(-1)?.acknowledgedSequence ?? 0n;
  }

  get results(): readonly AgentBeatResult[] {
    return this.messages.flatMap(({ results }) => results);
  }

  /** The results that were pushed. */
  get news(): readonly AgentBeatResult[] {
    return this.results.filter(({ sequence }) => sequence === 0n);
  }

  send(message: HeartbeatInit): bigint {
    this.#sequence += 1n;
    this.input.send({ sequence: this.#sequence, ...message });
    return this.#sequence;
  }

  /** Sends a message and waits for its acknowledgement. @returns its results */
  async beat(message: HeartbeatInit): Promise<readonly AgentBeatResult[]> {
    const sequence = this.send(message);
    await this.until(`message ${sequence} is acknowledged`, () => this.acknowledged >= sequence);
    return this.results.filter((result) => result.sequence === sequence);
  }

  /** Waits for a pushed result of an agent. */
  async newsOf(agentId: string, after = 0): Promise<AgentBeatResult> {
    const found = (): AgentBeatResult[] => this.news.filter((result) => result.agentId === agentId);
    await this.until(`news of ${agentId}`, () => found().length > after);
    return present(found()[after]);
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    this.input.end();
    await super[Symbol.asyncDispose]();
  }
}
