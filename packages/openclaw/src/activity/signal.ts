import type { ProviderExhaustion } from "harborforge-agents-client";

/** An exhaustion as the gateway shows it. */
export type Refusal = Pick<ProviderExhaustion, "reason" | "evidence"> & {
  /** The end in milliseconds since 1970. Undefined if neither the provider nor the gateway named one. */
  readonly until: number | undefined;
};

/** A fact about a run of an agent, read from an event or hook of the gateway. */
export type Signal = {
  /** The agent's id in the gateway. */
  readonly agentId: string;
  readonly runId: string;
  readonly isVoice: boolean;
} & SignalFact;

export type SignalFact =
  /** The gateway has taken the work. It may still refuse it without a further word. */
  | { readonly kind: "taken" }
  /** The run began, or begins again. */
  | { readonly kind: "started" }
  /**
   * The run does something. `works`: the provider responded, so the agent is not exhausted. `isCall`: a call of a model, which the
   * gateway also makes outside of runs, for titles and the like; such a call opens no run.
   */
  | { readonly kind: "progress"; readonly works: boolean; readonly inTool?: boolean; readonly isCall?: boolean }
  /** A provider refused a call of the run. The gateway may go on with another account or model. */
  | { readonly kind: "refused"; readonly refusal: Refusal }
  /** The gateway waits before it calls the same provider again. */
  | { readonly kind: "waiting"; readonly until: number; readonly isExhaustion: boolean }
  /** The run is over. With a refusal: no account and no fallback model of the agent was free. */
  | { readonly kind: "ended"; readonly succeeded: boolean; readonly refusal: Refusal | undefined };
