import type { Agent } from "./agent.ts";
import { KEEP_EXHAUSTION } from "./exhaustion.ts";
import type { StatusChange } from "./status-machine.ts";
import type { NewWake, WakeWrite } from "./wake.ts";

/** The offer of a wake, and the claim of its agent: one transition. */
export interface OfferWrite {
  readonly kind: "update";
  readonly agent: Agent;
  readonly cause: "wake";
  readonly status: StatusChange;
  readonly lease: { readonly kind: "keep" };
  readonly fenceEpoch: true;
  readonly wakes: readonly [WakeWrite];
}

/** @param from the wake as it is, or the content of a new one */
export function offerWrite(
  agent: Agent,
  { wakeId, claim }: Pick<NewWake, "wakeId" | "claim">,
  from: WakeWrite["from"],
): OfferWrite {
  return {
    kind: "update",
    agent,
    cause: "wake",
    status: {
      kind: "change",
      status: claim,
      cause: "wake",
      exhaustion: KEEP_EXHAUSTION,
      // A service's hold is judged first, also during an offer.
      hold: { kind: "keep" },
      forgetBackoff: false,
      notBefore: null,
    },
    lease: { kind: "keep" },
    // The session that holds the agent now gets the offer.
    fenceEpoch: true,
    wakes: [{ wakeId, from, state: "offered", reason: null, offers: true }],
  };
}
