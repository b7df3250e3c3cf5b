// The entry of the worker thread that WorkerBeats starts. Nothing of it is for other programs to call.
import { parentPort, workerData } from "node:worker_threads";
import { callErrorData } from "./connection/call-error.ts";
import type { AgentClaim } from "./heartbeats/beat-book.ts";
import { ClawStreams } from "./heartbeats/claw-streams.ts";
import { MainThreadWatch } from "./worker/main-thread-watch.ts";
import type { FromWorker, PlacedClaim, ToWorker, WorkerStart } from "./worker/worker-beats.ts";

/** A token that the main thread gave is used again when the main thread has no other one within this. */
const TOKEN_TIMEOUT_MS = 1_000;

function serve(port: NonNullable<typeof parentPort>, start: WorkerStart): void {
  let batch: FromWorker[] = [];
  /** Sends the events of one turn of the event loop in one message, so that a report settles with all that came with it. */
  const tell = (news: FromWorker): void => {
    batch.push(news);
    if (batch.length > 1) return;
    queueMicrotask(() => {
      const whole = batch;
      batch = [];
      port.postMessage(whole);
    });
  };
  const tokens = new AskedToken(() => tell({ kind: "token-wanted" }));
  const { target, claw, instanceId, generation, mainThreadTimeoutMs } = start;
  const token = start.token === "asked" ? () => tokens.ask() : start.token.fixed;
  /** The streams say by `resume` that the service has taken a claim in, often without any news of the agent. */
  const claimed = ({ agentId, start, claim }: PlacedClaim): AgentClaim => {
    let current = start;
    return {
      get start() {
        return current;
      },
      set start(next) {
        current = next;
        tell({ kind: "taken", agentId, claim });
      },
    };
  };
  const streams: ClawStreams = new ClawStreams({
    target: token === undefined ? target : { ...target, token },
    claw,
    instanceId,
    generation,
    listener: {
      onBeat: (beat, stays) => {
        tell({ kind: "beat", beat, stays, knownRevision: streams.knownRevision(beat.agentId) });
      },
      onConnection: (connection) => {
        if (connection.state === "connected") {
          const { intervalMs, leaseMs } = connection;
          tell({ kind: "connected", intervalMs, leaseMs });
        } else {
          const { error, retryInMs } = connection;
          tell({ kind: "waiting", error: error === undefined ? undefined : callErrorData(error), retryInMs });
        }
      },
      onStreamRefused: (agentIds, error) => tell({ kind: "stream-refused", agentIds, error: callErrorData(error) }),
    },
  });
  const watch = new MainThreadWatch({
    timeoutMs: mainThreadTimeoutMs,
    ping: () => tell({ kind: "ping" }),
    onSilent: (unansweredMs) => {
      streams.suspend();
      tell({ kind: "suspended", unansweredMs });
    },
    onBack: () => {
      streams.resume();
      tell({ kind: "resumed" });
    },
  });
  const obey = async (order: ToWorker): Promise<void> => {
    watch.heard();
    switch (order.kind) {
      case "alive":
        return;
      case "place": {
        const { agentId, standing, knownRevision } = order;
        streams.place(agentId, claimed(order), { standing, knownRevision });
        return;
      }
      case "say": {
        const { id, agentId, word, knownRevision } = order;
        const settle = (verdict: Parameters<Parameters<ClawStreams["say"]>[2]>[0]): void => {
          tell({ kind: "verdict", id, verdict, knownRevision: streams.knownRevision(agentId) });
        };
        streams.say(agentId, word, settle, knownRevision);
        return;
      }
      case "forget":
        streams.forget(order.agentId);
        return;
      case "retry-later":
        streams.retryLater(order.agentId, claimed(order));
        return;
      case "token":
        tokens.answer(order.token);
        return;
      case "no-token":
        tokens.refuse(order.error);
        return;
      case "end":
        watch.close();
        await streams.end(order.options);
        tell({ kind: "ended" });
        // After what is told in this turn.
        setImmediate(() => port.close());
    }
  };
  port.on("message", (order: ToWorker) => void obey(order));
}

/** The token of a function that runs in the main thread. While that one does not answer, the last token counts. */
class AskedToken {
  readonly #want: () => void;
  #asking: PromiseWithResolvers<string> | undefined;
  #last: string | undefined;

  constructor(want: () => void) {
    this.#want = want;
  }

  async ask(): Promise<string> {
    if (this.#asking === undefined) {
      this.#asking = Promise.withResolvers();
      this.#want();
    }
    const { promise } = this.#asking;
    const last = this.#last;
    if (last === undefined) return await promise;
    const { promise: tooLate, resolve } = Promise.withResolvers<string>();
    const timer = setTimeout(() => resolve(last), TOKEN_TIMEOUT_MS);
    try {
      return await Promise.race([promise, tooLate]);
    } finally {
      clearTimeout(timer);
    }
  }

  answer(token: string): void {
    this.#last = token;
    this.#asking?.resolve(token);
    this.#asking = undefined;
  }

  refuse(error: unknown): void {
    const asking = this.#asking;
    this.#asking = undefined;
    // Those who took the last token wait no more.
    asking?.promise.catch(() => undefined);
    asking?.reject(error);
  }
}

if (parentPort !== null) serve(parentPort, workerData);
