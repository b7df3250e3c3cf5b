import type { SessionStart } from "../domain/session-start.ts";
import type { Agreed, Report, Verdict } from "./beat-book.ts";
import type { CallErrorData } from "./call-error.ts";
import type { EndOptions } from "./claw-streams.ts";
import type { ServiceTarget } from "./transport.ts";
import type { BeatView } from "./views.ts";

/** What the worker of a claw's heartbeats is started with. */
export interface WorkerStart {
  readonly target: Omit<ServiceTarget, "transport" | "token">;
  /** `asked`: the main thread has a function for it. */
  readonly token: { readonly fixed: string | undefined } | "asked";
  readonly claw: string;
  readonly instanceId: string;
  readonly generation: bigint;
  readonly mainThreadTimeoutMs: number;
}

/** Why an agent beats, as the main thread knows it. */
export interface PlacedClaim {
  readonly agentId: string;
  readonly start: SessionStart;
  /** The number of the claim: an answer to an earlier one says nothing of it. */
  readonly claim: number;
}

/** What the main thread tells the worker. Each message shows that its event loop runs. */
export type ToWorker =
  | { readonly kind: "alive" }
  | ({ readonly kind: "place" } & PlacedClaim & Agreed)
  | {
      readonly kind: "say";
      readonly id: number;
      readonly agentId: string;
      readonly word: Report | "leaving";
      readonly knownRevision: bigint;
    }
  | ({ readonly kind: "retry-later" } & PlacedClaim)
  | { readonly kind: "forget"; readonly agentId: string }
  | { readonly kind: "token"; readonly token: string }
  | { readonly kind: "no-token"; readonly error: unknown }
  | { readonly kind: "end"; readonly options: EndOptions };

/** What the worker tells the main thread: a list of these in each message. */
export type FromWorker =
  /** To be answered with `alive`. */
  | { readonly kind: "ping" }
  | {
      readonly kind: "beat";
      readonly beat: BeatView;
      readonly stays: boolean;
      readonly knownRevision: bigint;
      /** The claim that the service has taken in. */
      readonly taken: number | undefined;
    }
  | { readonly kind: "verdict"; readonly id: number; readonly verdict: Verdict; readonly knownRevision: bigint }
  | {
      readonly kind: "connected";
      readonly intervalMs: number;
      readonly leaseMs: number;
    }
  | { readonly kind: "waiting"; readonly error: CallErrorData | undefined; readonly retryInMs: number }
  | { readonly kind: "stream-refused"; readonly agentIds: readonly string[]; readonly error: CallErrorData }
  | { readonly kind: "token-wanted" }
  | { readonly kind: "suspended"; readonly unansweredMs: number }
  | { readonly kind: "resumed" }
  | { readonly kind: "ended" };
