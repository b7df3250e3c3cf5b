import { Worker } from "node:worker_threads";
import type { SessionStart } from "../../../../common/contract/enum-names.ts";
import { LONGEST_TIMER_MS } from "../../../../common/scheduling/timers.ts";
import { type CallErrorData, callErrorFrom, callErrorOf } from "../connection/call-error.ts";
import type { ServiceTarget } from "../connection/node-clients.ts";
import { createRetryPause } from "../connection/retry-pause.ts";
import type { Token } from "../connection/token.ts";
import {
  type AgentClaim,
  type AgreedState,
  type BeatContent,
  type ReportResult,
  type Settle,
  workingStatus,
  workingStatusOf,
} from "../heartbeats/beat-queue.ts";
import type { ClawHeartbeats, ClawListener, EndOptions } from "../heartbeats/claw-streams.ts";
import type { BeatView, ClawMessageView } from "../views.ts";

/** Settings of the worker thread that sends the heartbeats. */
export interface HeartbeatWorkerOptions {
  /**
   * How long the event loop of the main thread may be blocked before the worker stops sending heartbeats, in milliseconds, from
   * 100 to 3,600,000. The agents go offline one lease later. Default: 60,000, since event loops of gateways were blocked for 35
   * to 40 s at their start.
   */
  readonly mainThreadTimeoutMs?: number;
  /**
   * The program of the worker, for programs that bundle the library: build `harborforge-agents-client/heartbeat-worker` as an
   * entry of its own. Default: the file of the library.
   */
  readonly url?: URL;
}

/** A change of the worker thread. */
export type HeartbeatWorkerEvent =
  /** The worker stopped the heartbeats because the main thread was blocked. Emitted when the main thread runs again. */
  | { readonly state: "suspended"; readonly unansweredMs: number }
  /** The worker sends heartbeats again. */
  | { readonly state: "resumed" }
  /** The worker ended by itself, or did not start. Another one starts, with all reports. */
  | { readonly state: "restarting"; readonly error: Error; readonly retryInMs: number };

export interface WorkerHeartbeatsOptions {
  readonly target: ServiceTarget;
  readonly claw: string;
  readonly instanceId: string;
  readonly worker: HeartbeatWorkerOptions;
  readonly listener: ClawListener & {
    onWorker(event: HeartbeatWorkerEvent): void;
  };
}

/** The start message of the worker. */
export interface WorkerStart {
  readonly target: Omit<ServiceTarget, "transport" | "token">;
  /** `asked`: the main thread has a function that returns it. */
  readonly token: { readonly fixed: string | undefined } | "asked";
  readonly claw: string;
  readonly instanceId: string;
  readonly generation: bigint;
  readonly mainThreadTimeoutMs: number;
}

/** Why an agent beats, as the main thread knows it. */
export interface ClaimMessage {
  readonly agentId: string;
  readonly start: SessionStart;
  /** The number of the claim. Answers to earlier claims do not apply to it. */
  readonly claim: number;
}

/** A message of the main thread to the worker. Each one shows that its event loop runs. */
export type ToWorker =
  | { readonly kind: "pong" }
  | ({ readonly kind: "add" } & ClaimMessage & AgreedState)
  | {
      readonly kind: "report";
      readonly id: number;
      readonly agentId: string;
      readonly content: BeatContent;
      readonly knownRevision: bigint;
    }
  | ({ readonly kind: "retry-later" } & ClaimMessage)
  | { readonly kind: "remove"; readonly agentId: string }
  | { readonly kind: "token"; readonly token: string }
  | { readonly kind: "token-error"; readonly error: unknown }
  | { readonly kind: "end"; readonly options: EndOptions };

/** An event in a message of the worker, which is a list of these. */
export type FromWorker =
  /** The main thread answers with `pong`. */
  | { readonly kind: "ping" }
  | {
      readonly kind: "message";
      readonly message: ClawMessageView;
      readonly stays: boolean;
      readonly knownRevision: bigint;
    }
  /** The service accepted the claim. */
  | { readonly kind: "claim-accepted"; readonly agentId: string; readonly claim: number }
  | {
      readonly kind: "report-result";
      readonly id: number;
      readonly result: ReportResult;
      readonly knownRevision: bigint;
    }
  | {
      readonly kind: "connected";
      readonly intervalMs: number;
      readonly leaseMs: number;
    }
  | { readonly kind: "waiting"; readonly error: CallErrorData | undefined; readonly retryInMs: number }
  | { readonly kind: "stream-refused"; readonly agentIds: readonly string[]; readonly error: CallErrorData }
  | { readonly kind: "token-request" }
  | { readonly kind: "suspended"; readonly unansweredMs: number }
  | { readonly kind: "resumed" }
  | { readonly kind: "ended" };

const MAIN_THREAD_TIMEOUT_MS = 60_000;
const SHORTEST_TIMEOUT_MS = 100;
const LONGEST_TIMEOUT_MS = 3_600_000;
/** More generations than a worker uses for its streams. */
const GENERATIONS_PER_WORKER = 1_000_000n;
/** How much longer than its end the last message of the worker may take. */
const END_GRACE_MS = 1_000;

/** A report or goodbye that is not settled yet. */
interface UnsettledReport {
  readonly agentId: string;
  readonly content: BeatContent;
  readonly knownRevision: bigint;
  readonly settle: Settle;
}

/** The state of an agent that the next worker needs. */
interface WorkerAgent {
  agreed: AgreedState;
  /** Why it beats, as its program decided, and the number of that decision. */
  claim: AgentClaim;
  claimNumber: number;
  /** The service rejected it. The worker tries it again later. */
  isRefused: boolean;
}

const NOTHING_AGREED: AgreedState = { agreedStatus: undefined, knownRevision: 0n };

/**
 * The heartbeats of a claw in a worker thread, which has the streams and repeats reports. The main thread keeps each report until the
 * worker returns its result, so that nothing is lost when a worker ends.
 */
export class WorkerHeartbeats implements ClawHeartbeats {
  readonly #options: WorkerHeartbeatsOptions;
  readonly #start: Omit<WorkerStart, "generation">;
  readonly #token: Token | undefined;
  readonly #agents = new Map<string, WorkerAgent>();
  /** By number, in the order of the reports. */
  readonly #reports = new Map<number, UnsettledReport>();
  readonly #retry = createRetryPause();
  #worker: Worker | undefined;
  #restart: ReturnType<typeof setTimeout> | undefined;
  /** From the clock, so that a process with the same name as an earlier one has greater generations. */
  #generation = BigInt(Date.now()) * 1_000n;
  #nextId = 0;
  /** How many claims there were. */
  #claims = 0;
  /** Resolved when the worker has ended after `end`. */
  #ending: PromiseWithResolvers<void> | undefined;

  /** @throws RangeError for a transport, and for a timeout out of range; DataCloneError for values that cannot be passed to a thread */
  constructor(options: WorkerHeartbeatsOptions) {
    this.#options = options;
    const { transport, token, ...target } = options.target;
    const { mainThreadTimeoutMs = MAIN_THREAD_TIMEOUT_MS } = options.worker;
    if (transport !== undefined) {
      throw new RangeError("worker: a transport cannot be used in a worker thread. Give address or addresses instead.");
    }
    if (!(mainThreadTimeoutMs >= SHORTEST_TIMEOUT_MS && mainThreadTimeoutMs <= LONGEST_TIMEOUT_MS)) {
      const range = `from ${SHORTEST_TIMEOUT_MS} to ${LONGEST_TIMEOUT_MS} milliseconds`;
      throw new RangeError(
        `worker.mainThreadTimeoutMs: ${mainThreadTimeoutMs} is out of range. Give a number ${range}.`,
      );
    }
    const { address, addresses, tls } = target;
    const { claw, instanceId } = options;
    this.#token = token;
    this.#start = structuredClone({
      target: {
        ...(address === undefined ? {} : { address }),
        ...(addresses === undefined ? {} : { addresses }),
        ...(tls === undefined ? {} : { tls }),
      },
      token: typeof token === "function" ? "asked" : { fixed: token },
      claw,
      instanceId,
      mainThreadTimeoutMs,
    });
  }

  add(agentId: string, claim: AgentClaim): void {
    const agent = this.#agentOf(agentId);
    agent.isRefused = false;
    this.#claim(agent, claim);
    this.#launchOnce();
    this.#post({ kind: "add", ...claimMessage(agentId, agent), ...agent.agreed });
  }

  report(agentId: string, content: BeatContent, settle: Settle): void {
    const { knownRevision } = this.#agentOf(agentId).agreed;
    this.#nextId += 1;
    this.#reports.set(this.#nextId, { agentId, content, knownRevision, settle });
    this.#post({ kind: "report", id: this.#nextId, agentId, content, knownRevision });
  }

  remove(agentId: string): void {
    this.#agents.delete(agentId);
    this.#post({ kind: "remove", agentId });
  }

  retryLater(agentId: string, claim: AgentClaim): void {
    const agent = this.#agentOf(agentId);
    agent.isRefused = true;
    this.#claim(agent, claim);
    this.#post({ kind: "retry-later", ...claimMessage(agentId, agent) });
  }

  async end(options: EndOptions): Promise<void> {
    const ending = Promise.withResolvers<void>();
    this.#ending = ending;
    const restarts = this.#restart !== undefined;
    clearTimeout(this.#restart);
    // Reports from before the end of the last worker have to be sent.
    if (restarts) this.#launch();
    const worker = this.#worker;
    if (worker === undefined) return;
    this.#post({ kind: "end", options });
    const tooLate = setTimeout(ending.resolve, Math.min(options.withinMs + END_GRACE_MS, LONGEST_TIMER_MS));
    await ending.promise;
    clearTimeout(tooLate);
    this.#worker = undefined;
    await worker.terminate();
  }

  #agentOf(agentId: string): WorkerAgent {
    const present = this.#agents.get(agentId);
    if (present !== undefined) return present;
    const agent: WorkerAgent = { agreed: NOTHING_AGREED, claim: { start: "first" }, claimNumber: 0, isRefused: false };
    this.#agents.set(agentId, agent);
    return agent;
  }

  #claim(agent: WorkerAgent, claim: AgentClaim): void {
    this.#claims += 1;
    agent.claim = claim;
    agent.claimNumber = this.#claims;
  }

  #launchOnce(): void {
    if (this.#worker === undefined && this.#restart === undefined && this.#ending === undefined) this.#launch();
  }

  /** Starts a worker, and sends it all agents and reports. Never throws. */
  #launch(): void {
    this.#restart = undefined;
    let worker: Worker;
    try {
      worker = this.#create();
    } catch (error) {
      this.#onEnd(error instanceof Error ? error : new Error("the worker did not start", { cause: error }));
      return;
    }
    this.#worker = worker;
    let failure = new Error("the worker ended by itself");
    worker.on("message", (batch: readonly FromWorker[]) => {
      for (const event of batch) if (this.#worker === worker) this.#receive(event);
    });
    worker.on("messageerror", (error) => {
      failure = error;
      void worker.terminate();
    });
    worker.on("error", (error) => {
      failure = error instanceof Error ? error : new Error("the worker failed", { cause: error });
    });
    worker.on("exit", () => {
      if (this.#worker === worker) this.#onEnd(failure);
    });
    for (const [agentId, agent] of this.#agents) {
      const claim = claimMessage(agentId, agent);
      this.#post(agent.isRefused ? { kind: "retry-later", ...claim } : { kind: "add", ...claim, ...agent.agreed });
    }
    for (const [id, { agentId, content, knownRevision }] of this.#reports) {
      this.#post({ kind: "report", id, agentId, content, knownRevision });
    }
  }

  #create(): Worker {
    const now = BigInt(Date.now()) * 1_000n;
    const next = this.#generation + GENERATIONS_PER_WORKER;
    this.#generation = now > next ? now : next;
    const workerData: WorkerStart = { ...this.#start, generation: this.#generation };
    // A source in a checkout, compiled in the package.
    const extension = import.meta.url.endsWith(".ts") ? "ts" : "js";
    const { url = new URL(`../heartbeat-worker.${extension}`, import.meta.url) } = this.#options.worker;
    // A thread inherits the options of Node. `--input-type`, which goes with --eval, does not work for a file.
    const isText = process.execArgv.some((option) => option.startsWith("--input-type"));
    return new Worker(url, { workerData, name: "harborforge-heartbeats", ...(isText ? { execArgv: [] } : {}) });
  }

  /** The worker ended, or did not start. */
  #onEnd(error: Error): void {
    this.#worker = undefined;
    if (this.#ending !== undefined) {
      this.#ending.resolve();
      return;
    }
    const retryInMs = this.#retry.next();
    this.#restart = setTimeout(() => this.#launch(), retryInMs);
    this.#options.listener.onWorker({ state: "restarting", error, retryInMs });
  }

  #post(command: ToWorker): void {
    this.#worker?.postMessage(command);
  }

  #receive(event: FromWorker): void {
    const { listener } = this.#options;
    switch (event.kind) {
      case "ping":
        this.#post({ kind: "pong" });
        return;
      case "message":
        if (event.message.kind === "result") this.#receiveBeat(event.message, event.stays, event.knownRevision);
        listener.onMessage(event.message, event.stays);
        return;
      case "claim-accepted":
        this.#noteAccepted(event.agentId, event.claim);
        return;
      case "report-result":
        this.#settle(event.id, event.result, event.knownRevision);
        return;
      case "connected": {
        this.#retry.reset();
        const { intervalMs, leaseMs } = event;
        listener.onConnection({ state: "connected", intervalMs, leaseMs });
        return;
      }
      case "waiting": {
        const { error, retryInMs } = event;
        const callError = error === undefined ? undefined : callErrorFrom(error);
        listener.onConnection({ state: "waiting", error: callError, retryInMs });
        return;
      }
      case "stream-refused":
        listener.onStreamRefused(event.agentIds, callErrorFrom(event.error));
        return;
      case "token-request":
        void this.#sendToken();
        return;
      case "suspended":
        listener.onWorker({ state: "suspended", unansweredMs: event.unansweredMs });
        return;
      case "resumed":
        listener.onWorker({ state: "resumed" });
        return;
      case "ended":
        this.#ending?.resolve();
    }
  }

  /** The next worker only resumes the session. */
  #noteAccepted(agentId: string, accepted: number): void {
    const agent = this.#agents.get(agentId);
    if (agent !== undefined && agent.claimNumber === accepted) agent.claim.start = "resume";
  }

  /** Applies a result as the BeatQueue in the worker does. */
  #receiveBeat(beat: BeatView, stays: boolean, knownRevision: bigint): void {
    const { agentId, status, refusal } = beat;
    const reports = [...this.#reports].filter(([, one]) => one.agentId === agentId);
    if (stays) {
      const agent = this.#agentOf(agentId);
      agent.isRefused = false;
      const isAgreed = status !== undefined && status !== "offline" && reports.length === 0;
      agent.agreed = { agreedStatus: isAgreed ? workingStatus(status) : agent.agreed.agreedStatus, knownRevision };
      return;
    }
    this.#agents.delete(agentId);
    // The worker has settled the reports that it had. These reached it later.
    for (const [id, { settle }] of reports) {
      this.#reports.delete(id);
      if (refusal !== undefined) settle({ kind: "refused", beat, refusal });
    }
  }

  #settle(id: number, result: ReportResult, knownRevision: bigint): void {
    const report = this.#reports.get(id);
    if (report === undefined) return;
    this.#reports.delete(id);
    const { agentId, content, settle } = report;
    const agent = this.#agents.get(agentId);
    if (agent !== undefined && result.kind === "applied" && content !== "leaving") {
      const agreedStatus =
        result.serverStatus === undefined ? workingStatusOf(content) : workingStatus(result.serverStatus);
      agent.agreed = { agreedStatus, knownRevision };
    }
    settle(result);
  }

  async #sendToken(): Promise<void> {
    const worker = this.#worker;
    let answer: ToWorker;
    try {
      const token = typeof this.#token === "function" ? await this.#token() : String(this.#token);
      answer = { kind: "token", token: String(token) };
    } catch (error) {
      answer = { kind: "token-error", error: new Error(callErrorOf(error).message) };
    }
    worker?.postMessage(answer);
  }
}

function claimMessage(agentId: string, { claim, claimNumber }: WorkerAgent): ClaimMessage {
  return { agentId, start: claim.start, claim: claimNumber };
}
