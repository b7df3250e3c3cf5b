import type { AgentStatus, ExhaustReason } from "../../../common/contract/enum-names.ts";
import type { Style } from "../terminal/paint.ts";
import type { Cell, Column } from "../terminal/table.ts";
import { timeText } from "../terminal/times.ts";
import type { Fact } from "./output.ts";
import type { AgentRecord, TransitionRecord } from "./records.ts";

/** The status as a cell, by its name in the contract, which commands also accept. */
export function statusCell(status: AgentStatus | "unknown" | undefined, none = ""): Cell {
  return { text: status ?? none, style: styleOf(status) };
}

export function styleOf(status: AgentStatus | "suspect" | "unknown" | undefined): Style | undefined {
  if (status === "suspect") return "alarm";
  return status === undefined || status === "unknown" ? undefined : status;
}

/**
 * The status of an agent; `suspect` for a suspect one, whose status is probably outdated.
 *
 * @param form `long`: with the status that a suspect agent had
 */
export function agentStatusCell({ status, suspectSince }: AgentRecord, form: "short" | "long" = "short"): Cell {
  if (suspectSince === undefined) return statusCell(status);
  return { text: form === "long" ? `suspect (last ${status})` : "suspect", style: styleOf("suspect") };
}

export function reasonText(reason: ExhaustReason | "unknown"): string {
  return reason === "rate_limit" ? "rate limit" : reason;
}

/**
 * The columns of a list of agents.
 *
 * @param nowMs the present, in milliseconds since 1970
 */
export function agentColumns(nowMs: number): readonly Column<AgentRecord>[] {
  return [
    { heading: "AGENT", cell: ({ agentId }) => agentId },
    { heading: "CLAW", cell: ({ clawIdentifier }) => clawIdentifier },
    { heading: "STATUS", cell: (agent) => agentStatusCell(agent) },
    { heading: "SINCE", cell: ({ statusChangedAt }) => timeText(statusChangedAt, nowMs) },
    { heading: "RECOVERY", cell: (agent) => recoveryText(agent, nowMs) },
    { heading: "HEARTBEAT", cell: ({ lastHeartbeat }) => timeText(lastHeartbeat, nowMs), optional: true },
    { heading: "USER", cell: ({ userId }) => String(userId), align: "right", optional: true },
  ];
}

function recoveryText({ exhaustion }: AgentRecord, nowMs: number): string {
  if (exhaustion === undefined) return "";
  const { reason, recoveryAt } = exhaustion;
  return [timeText(recoveryAt, nowMs), reasonText(reason)].filter((words) => words !== "").join(", ");
}

/** All facts of an agent. */
export function agentFacts(agent: AgentRecord, nowMs: number): readonly Fact[] {
  const at = (instant: number | undefined): string => timeText(instant, nowMs);
  return [
    ["agent", agent.agentId],
    ["claw", agent.clawIdentifier],
    ["status", agentStatusCell(agent, "long")],
    ["since", at(agent.statusChangedAt)],
    ["exhausted", agent.exhaustion === undefined ? "" : reasonText(agent.exhaustion.reason)],
    ["exhausted since", at(agent.exhaustedAt)],
    ["recovery", at(agent.exhaustion?.recoveryAt)],
    ["last heartbeat", at(agent.lastHeartbeat)],
    ["lease ends", at(agent.leaseExpiresAt)],
    ["suspect since", { text: at(agent.suspectSince), style: "alarm" }],
    ["user", String(agent.userId)],
    ["id", String(agent.id)],
    ["created", at(agent.createdAt)],
    ["revision", String(agent.revision)],
  ];
}

/** The columns of a list of transitions. */
export function transitionColumns(nowMs: number): readonly Column<TransitionRecord>[] {
  return [
    { heading: "REVISION", cell: ({ revision }) => String(revision), align: "right" },
    { heading: "TIME", cell: ({ occurredAt }) => timeText(occurredAt, nowMs) },
    { heading: "AGENT", cell: ({ agentId }) => agentId },
    { heading: "FROM", cell: ({ from }) => statusCell(from, "-") },
    { heading: "TO", cell: ({ to }) => statusCell(to, "-") },
    { heading: "CAUSE", cell: ({ cause }) => cause },
    { heading: "DETAILS", cell: (transition) => transitionDetails(transition, nowMs), optional: true },
    { heading: "ACTOR", cell: ({ actor }) => actor, optional: true },
  ];
}

/** The details of a transition besides its statuses and cause. */
export function transitionDetails(transition: TransitionRecord, nowMs: number): string {
  const { exhaustion, fromClawIdentifier, clawIdentifier, incidentId } = transition;
  const parts: string[] = [];
  if (exhaustion !== undefined) {
    const until = timeText(exhaustion.recoveryAt, nowMs);
    parts.push(`${reasonText(exhaustion.reason)}${until === "" ? "" : ` until ${until}`}`);
  }
  if (fromClawIdentifier !== undefined && clawIdentifier !== undefined && fromClawIdentifier !== clawIdentifier) {
    parts.push(`${fromClawIdentifier} -> ${clawIdentifier}`);
  }
  if (incidentId !== undefined) parts.push(`incident ${incidentId}`);
  return parts.join(", ");
}
