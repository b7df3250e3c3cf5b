import { type Micros, toRfc3339 } from "../../common/contract/time.ts";
import { Refusal } from "../domain/errors.ts";
import { MAX_QUEUED_WAKES } from "../domain/wake.ts";
import type { OfferLimit } from "./wake-change.ts";

/** A place or a token is free again after about this time, in milliseconds. */
const RETRY_MS = 1_000;

export function wakeIdTaken(wakeId: string): Refusal {
  return new Refusal(
    "WAKE_ID_TAKEN",
    `wake_id: '${wakeId}' has other content, or belongs to another principal. Choose another wake_id.`,
    { metadata: { wakeId } },
  );
}

/** @param now the database's clock */
export function wakeExpired(now: Micros): Refusal {
  return new Refusal("WAKE_EXPIRED", "expires_at: it has passed. Choose a later time.", {
    metadata: { now: toRfc3339(now) },
  });
}

export function wakeQueueFull(agentId: string): Refusal {
  return new Refusal(
    "WAKE_QUEUE_FULL",
    `'${agentId}' has ${MAX_QUEUED_WAKES} queued wakes. Cancel some of them, or wait until they end.`,
    { metadata: { limit: MAX_QUEUED_WAKES.toString() } },
  );
}

export function wakesLimited(limit: OfferLimit): Refusal {
  const message =
    limit === "wakesPerSecond"
      ? "The deployment offers no more wakes in this second. Try again, or queue the wake."
      : "The claw of the agent has too many open offers. Try again when some are answered, or queue the wake.";
  return new Refusal("WAKES_LIMITED", message, { metadata: { limit }, retryAfterMs: RETRY_MS });
}

/** Services act on their own wakes only. */
export function wakeDenied(wakeId: string): Refusal {
  return new Refusal("PERMISSION_DENIED", `'${wakeId}' belongs to another principal.`, { metadata: { wakeId } });
}
