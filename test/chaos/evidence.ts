import type { Instant, SentMessage, StreamRecord } from "./ledger.ts";
import type { LoggedTransition } from "./transition-log.ts";

/** A beat of one agent as it was sent. */
export interface Beat {
  readonly stream: StreamRecord;
  readonly message: SentMessage;
  /** Undefined: it only renewed, or said goodbye. */
  readonly report: string | undefined;
}

/** The evidence of one agent: its beats as they were sent and its transitions as they were logged. */
export class AgentEvidence {
  readonly beats: Beat[] = [];
  readonly transitions: LoggedTransition[] = [];

  /** The status at an instant; undefined before the log began. */
  statusAt(at: Instant): string | undefined {
    let status: string | null | undefined = this.transitions[0]?.from;
    for (const transition of this.transitions) {
      if (transition.at > at) break;
      status = transition.to;
    }
    return status ?? undefined;
  }

  /** Whether the agent had a status at some instant of a period. */
  was(status: string, from: Instant, until: Instant): boolean {
    if (this.statusAt(from) === status) return true;
    return this.transitions.some(({ at, to }) => to === status && at >= from && at <= until);
  }

  /** The first acknowledged and not rejected beat after an instant. */
  firstAckAfter(at: Instant): Instant | undefined {
    let first: Instant | undefined;
    for (const { message } of this.beats) {
      if (message.sentAt < at || message.ackedAt === undefined) continue;
      if (first === undefined || message.ackedAt < first) first = message.ackedAt;
    }
    return first;
  }

  lastSentBefore(at: Instant): Instant | undefined {
    let last: Instant | undefined;
    for (const { message } of this.beats) {
      if (message.sentAt <= at && (last === undefined || message.sentAt > last)) last = message.sentAt;
    }
    return last;
  }
}

/** Groups the evidence by agent. */
export function gather(
  streams: readonly StreamRecord[],
  transitions: readonly LoggedTransition[],
  agentIds: Iterable<string>,
): Map<string, AgentEvidence> {
  const evidence = new Map<string, AgentEvidence>();
  for (const agentId of agentIds) evidence.set(agentId, new AgentEvidence());
  for (const stream of streams) {
    for (const message of stream.messages) {
      for (const agentId of message.agents) {
        if (message.refused.has(agentId)) continue;
        evidence.get(agentId)?.beats.push({ stream, message, report: message.reports.get(agentId) });
      }
    }
  }
  for (const transition of transitions) evidence.get(transition.agentId)?.transitions.push(transition);
  return evidence;
}
