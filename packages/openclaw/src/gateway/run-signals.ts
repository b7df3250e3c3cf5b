import { field, number, text } from "../../../../common/openclaw/values.ts";
import type { Signal, SignalFact } from "../activity/signal.ts";
import { agentOfSession, isVoiceSession } from "./agent-ids.ts";
import { refusalOfLifecycle, refusalOfMessage } from "./refusals.ts";

/** The hooks that the plugin reads. They return nothing, so they change nothing of a turn. */
export const RUN_HOOKS = ["before_model_resolve", "model_call_started", "model_call_ended", "llm_output"] as const;
export type RunHook = (typeof RUN_HOOKS)[number];

/** Reads an event of `api.runtime.events.onAgentEvent`. Undefined for an event without an agent or a meaning for its status. */
export function signalOfEvent(event: unknown, now: number): Signal | undefined {
  return signal(event, factOfEvent(text(event, "stream"), field(event, "data"), now));
}

/** Reads a hook. The run is in the event or in the context. */
export function signalOfHook(hook: RunHook, event: unknown, context: unknown, now: number): Signal | undefined {
  return signal(
    {
      runId: text(context, "runId") ?? text(event, "runId"),
      agentId: text(context, "agentId"),
      sessionKey: text(context, "sessionKey") ?? text(event, "sessionKey"),
    },
    factOfHook(hook, event, now),
  );
}

function signal(origin: unknown, fact: SignalFact | undefined): Signal | undefined {
  const runId = text(origin, "runId");
  const sessionKey = text(origin, "sessionKey");
  const agentId = text(origin, "agentId")?.toLowerCase() ?? agentOfSession(sessionKey);
  if (fact === undefined || runId === undefined || agentId === undefined) return undefined;
  return { agentId, runId, isVoice: isVoiceSession(sessionKey), ...fact };
}

function factOfEvent(stream: string | undefined, data: unknown, now: number): SignalFact | undefined {
  switch (stream) {
    case "lifecycle":
      return factOfLifecycle(data, now);
    case "run_status": {
      if (text(data, "phase") !== "retrying") return { kind: "progress", works: false };
      const reason = text(data, "reason");
      const isExhaustion = reason === "rate_limit" || reason === "billing";
      return { kind: "waiting", until: now + (number(data, "delayMs") ?? 0), isExhaustion };
    }
    case "assistant":
      // The gateway empties the text of a failed attempt: that is no response of the provider.
      return { kind: "progress", works: text(data, "text") !== undefined || text(data, "delta") !== undefined };
    case "tool":
      return { kind: "progress", works: true, inTool: text(data, "phase") !== "result" };
    case "thinking":
    case "usage":
      return { kind: "progress", works: true };
    case undefined:
      return undefined;
    default:
      return { kind: "progress", works: false };
  }
}

function factOfLifecycle(data: unknown, now: number): SignalFact | undefined {
  switch (text(data, "phase")) {
    case "start":
      return { kind: "started" };
    case "end":
      return { kind: "ended", succeeded: field(data, "aborted") !== true, refusal: undefined };
    case "error": {
      // A turn that its caller gave up says nothing of the accounts, though it repeats the last refusal.
      const refusal = field(data, "aborted") === true ? undefined : refusalOfLifecycle(data, now);
      return { kind: "ended", succeeded: false, refusal };
    }
    case "finishing": {
      const refusal = refusalOfLifecycle(data, now);
      return refusal === undefined ? { kind: "progress", works: false } : { kind: "refused", refusal };
    }
    default:
      // "model" comes before the end, and after it for a run that is over.
      return undefined;
  }
}

function factOfHook(hook: RunHook, event: unknown, now: number): SignalFact | undefined {
  switch (hook) {
    case "before_model_resolve":
      return { kind: "taken" };
    case "model_call_started":
      return { kind: "progress", works: false, isCall: true };
    case "model_call_ended":
      return { kind: "progress", works: text(event, "outcome") === "completed", isCall: true };
    case "llm_output": {
      const refusal = refusalOfMessage(field(event, "lastAssistant"), now);
      // It arrives when the attempt is over, and may arrive after the end of the run.
      return refusal === undefined ? undefined : { kind: "refused", refusal };
    }
  }
}
