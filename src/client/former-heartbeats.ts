import * as current from "harborforge-agents-client";
import { formerError, formerExhaustion, formerReport, type ReportError } from "./former-errors.ts";
import { type ExhaustionView, NO_TIMEOUT } from "./former-views.ts";

export type HeartbeatClientOptions = Omit<current.HeartbeatClientOptions, "timeoutMs">;

export interface AgentStatusEvent extends Omit<current.AgentStatusEvent, "exhaustion"> {
  readonly exhaustion: ExhaustionView | undefined;
}

export interface AgentEvents {
  readonly status: AgentStatusEvent;
  readonly superseded: ReportError;
  readonly refused: ReportError;
}

export interface AgentHandle extends Omit<current.AgentHandle, "exhaustion" | "on"> {
  readonly exhaustion: ExhaustionView | undefined;
  on<Name extends keyof AgentEvents>(name: Name, listener: (event: AgentEvents[Name]) => void): () => void;
}

export interface HeartbeatClient extends Omit<current.HeartbeatClient, "agent"> {
  agent(agentId: string): AgentHandle;
}

/** @deprecated Use `createHeartbeatClient` of `harborforge-agents-client`. */
export function createHeartbeatClient(options: HeartbeatClientOptions): HeartbeatClient {
  const client = current.createHeartbeatClient({ ...options, ...NO_TIMEOUT });
  const handles = new WeakMap<current.AgentHandle, AgentHandle>();
  return {
    instanceId: client.instanceId,
    agent(agentId) {
      const agent = client.agent(agentId);
      const handle = handles.get(agent) ?? new FormerHandle(agent);
      handles.set(agent, handle);
      return handle;
    },
    on: (name, listener) => client.on(name, listener),
    close: (how) => client.close(how),
    [Symbol.asyncDispose]: () => client.close(),
  };
}

class FormerHandle implements AgentHandle {
  readonly #agent: current.AgentHandle;

  constructor(agent: current.AgentHandle) {
    this.#agent = agent;
  }

  get agentId() {
    return this.#agent.agentId;
  }

  get status() {
    return this.#agent.status;
  }

  get exhaustion() {
    return formerExhaustion(this.#agent.exhaustion);
  }

  get presence() {
    return this.#agent.presence;
  }

  idle(options?: current.WaitOptions) {
    return former(this.#agent.idle(options));
  }

  onCall(options?: current.WaitOptions) {
    return former(this.#agent.onCall(options));
  }

  busy(options?: current.WaitOptions) {
    return former(this.#agent.busy(options));
  }

  exhausted(report: current.ExhaustionReport, options?: current.WaitOptions) {
    return former(this.#agent.exhausted(report, options));
  }

  leave(options?: current.WaitOptions) {
    return former(this.#agent.leave(options));
  }

  claim() {
    this.#agent.claim();
  }

  on<Name extends keyof AgentEvents>(name: Name, listener: (event: AgentEvents[Name]) => void): () => void {
    const listeners: { readonly [Key in keyof AgentEvents]: (heard: (event: AgentEvents[Key]) => void) => () => void } =
      {
        status: (heard) =>
          this.#agent.on("status", (event) => heard({ ...event, exhaustion: formerExhaustion(event.exhaustion) })),
        superseded: (heard) => this.#agent.on("superseded", (error) => heard(formerReport(error))),
        refused: (heard) => this.#agent.on("refused", (error) => heard(formerReport(error))),
      };
    return listeners[name](listener);
  }
}

/** The same promise with the former errors. A rejection without a handler does not end the process. */
function former<T>(promise: Promise<T>): Promise<T> {
  const same = promise.catch((error: unknown) => {
    throw formerError(error);
  });
  same.catch(() => undefined);
  return same;
}
