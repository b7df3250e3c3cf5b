// `harborforge-agents-client/heartbeat-worker`: the program of the worker thread that WorkerHeartbeats starts. It exports nothing.
import { parentPort, workerData } from "node:worker_threads";
import { callErrorData } from "./connection/call-error.ts";
import type { AgentClaim } from "./heartbeats/beat-queue.ts";
import { ClawStreams } from "./heartbeats/claw-streams.ts";
import { MainThreadWatch } from "./worker/main-thread-watch.ts";
import type { ClaimMessage, FromWorker, ToWorker, WorkerStart } from "./worker/worker-heartbeats.ts";

/** If the main thread returns no token within this time, the worker uses the last one. */
const TOKEN_TIMEOUT_MS = 1_000;

function serve(port: NonNullable<typeof parentPort>, start: WorkerStart): void {
  let batch: FromWorker[] = [];
  /** Sends the events of one turn of the event loop in one message, so that a report settles together with its results. */
  const post = (message: FromWorker): void => {
    batch.push(message);
    if (batch.length > 1) return;
    queueMicrotask(() => {
      const whole = batch;
      batch = [];
      port.postMessage(whole);
    });
  };
  const tokens = new RequestedToken(() => post({ kind: "token-request" }));
  const { target, claw, instanceId, generation, mainThreadTimeoutMs } = start;
  const token = start.token === "asked" ? () => tokens.get() : start.token.fixed;
  /** Streams set `resume` when the service has accepted a claim, often without a result for the agent. */
  const claimOf = ({ agentId, start, claim }: ClaimMessage): AgentClaim => {
    let current = start;
    return {
      get start() {
        return current;
      },
      set start(next) {
        current = next;
        post({ kind: "claim-accepted", agentId, claim });
      },
    };
  };
  const streams: ClawStreams = new ClawStreams({
    target: token === undefined ? target : { ...target, token },
    claw,
    instanceId,
    generation,
    listener: {
      onMessage: (message, stays) => {
        post({ kind: "message", message, stays, knownRevision: streams.knownRevision(message.agentId) });
      },
      onConnection: (connection) => {
        if (connection.state === "connected") {
          const { intervalMs, leaseMs } = connection;
          post({ kind: "connected", intervalMs, leaseMs });
        } else {
          const { error, retryInMs } = connection;
          post({ kind: "waiting", error: error === undefined ? undefined : callErrorData(error), retryInMs });
        }
      },
      onStreamRefused: (agentIds, error) => post({ kind: "stream-refused", agentIds, error: callErrorData(error) }),
    },
  });
  const watch = new MainThreadWatch({
    timeoutMs: mainThreadTimeoutMs,
    ping: () => post({ kind: "ping" }),
    onSilent: (unansweredMs) => {
      streams.suspend();
      post({ kind: "suspended", unansweredMs });
    },
    onBack: () => {
      streams.resume();
      post({ kind: "resumed" });
    },
  });
  const handle = async (command: ToWorker): Promise<void> => {
    watch.noteAnswer();
    switch (command.kind) {
      case "pong":
        return;
      case "add": {
        const { agentId, agreedStatus, knownRevision } = command;
        streams.add(agentId, claimOf(command), { agreedStatus, knownRevision });
        return;
      }
      case "report": {
        const { id, agentId, content, knownRevision } = command;
        const settle = (result: Parameters<Parameters<ClawStreams["report"]>[2]>[0]): void => {
          post({ kind: "report-result", id, result, knownRevision: streams.knownRevision(agentId) });
        };
        streams.report(agentId, content, settle, knownRevision);
        return;
      }
      case "remove":
        streams.remove(command.agentId);
        return;
      case "retry-later":
        streams.retryLater(command.agentId, claimOf(command));
        return;
      case "token":
        tokens.answer(command.token);
        return;
      case "token-error":
        tokens.fail(command.error);
        return;
      case "end":
        watch.close();
        await streams.end(command.options);
        post({ kind: "ended" });
        // After the messages of this turn.
        setImmediate(() => port.close());
    }
  };
  port.on("message", (command: ToWorker) => void handle(command));
}

/** The token of a function that runs in the main thread. While that is blocked, the last token is used. */
class RequestedToken {
  readonly #request: () => void;
  #pending: PromiseWithResolvers<string> | undefined;
  #last: string | undefined;

  constructor(request: () => void) {
    this.#request = request;
  }

  async get(): Promise<string> {
    if (this.#pending === undefined) {
      this.#pending = Promise.withResolvers();
      this.#request();
    }
    const { promise } = this.#pending;
    const last = this.#last;
    if (last === undefined) return await promise;
    const { promise: timeout, resolve } = Promise.withResolvers<string>();
    const timer = setTimeout(() => resolve(last), TOKEN_TIMEOUT_MS);
    try {
      return await Promise.race([promise, timeout]);
    } finally {
      clearTimeout(timer);
    }
  }

  answer(token: string): void {
    this.#last = token;
    this.#pending?.resolve(token);
    this.#pending = undefined;
  }

  fail(error: unknown): void {
    const pending = this.#pending;
    this.#pending = undefined;
    // Calls that use the last token do not wait for this promise.
    pending?.promise.catch(() => undefined);
    pending?.reject(error);
  }
}

if (parentPort !== null) serve(parentPort, workerData);
