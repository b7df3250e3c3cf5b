import { exhaustionFromError } from "harborforge-agents-client";
import { field, text } from "../../../../common/openclaw/values.ts";
import type { Refusal } from "../activity/signal.ts";

const MINUTE_MS = 60_000;
const UNITS_MS = { second: 1_000, minute: MINUTE_MS, hour: 60 * MINUTE_MS } as const;

/** The refusal in the last message of the model: the hook `llm_output`. The provider's own words are there. */
export function refusalOfMessage(message: unknown, now: number): Refusal | undefined {
  if (text(message, "stopReason") !== "error") return undefined;
  const errorMessage = text(message, "errorMessage");
  const status = Number(/^(\d{3})\b/.exec(errorMessage ?? "")?.[1]);
  const wait = /Retry-After: (\d+)/i.exec(errorMessage ?? "")?.[1];
  return refusalOf(
    {
      ...(Number.isNaN(status) ? {} : { status }),
      headers: wait === undefined ? {} : { "retry-after": wait },
      code: text(message, "errorCode"),
      type: text(message, "errorType"),
      message: errorMessage,
      body: { error: parsed(text(message, "errorBody")) ?? errorMessage },
    },
    now,
  );
}

/**
 * The refusal in a lifecycle event that ends an attempt or a run. `errorObservation` has the gateway's own judgement; its text
 * often has the provider's wait. A run that the gateway refused without a call has neither: see `accounts.ts`.
 */
export function refusalOfLifecycle(data: unknown, now: number): Refusal | undefined {
  const message = text(data, "error");
  const judged = text(field(data, "errorObservation"), "failoverReason");
  if (judged === "rate_limit" || judged === "billing") {
    const status = judged === "billing" ? 402 : 429;
    const read = refusalOf({ status, message: message?.replace(/^\W+/, "") }, now);
    return { reason: judged, until: read?.until ?? waitOf(message, now), evidence: `gateway: ${judged}` };
  }
  return undefined;
}

function waitOf(message: string | undefined, now: number): number | undefined {
  const found = /Retry(?:-| )?After:? (?:about )?(\d+) ?(second|minute|hour)s?/i.exec(message ?? "");
  const unit = found?.[2]?.toLowerCase();
  if (unit !== "second" && unit !== "minute" && unit !== "hour") return undefined;
  return now + Number(found?.[1]) * UNITS_MS[unit];
}

function refusalOf(error: object, now: number): Refusal | undefined {
  const exhaustion = exhaustionFromError(error, now);
  if (exhaustion === undefined) return undefined;
  const { reason, retryAfterMs, evidence } = exhaustion;
  return { reason, until: retryAfterMs === undefined ? undefined : now + retryAfterMs, evidence };
}

function parsed(json: string | undefined): unknown {
  try {
    return json === undefined ? undefined : JSON.parse(json);
  } catch {
    return json;
  }
}
