import type { FaultLog } from "./fault-log.ts";
import type { Instant, StreamRecord } from "./ledger.ts";
import type { LoggedTransition } from "./transition-log.ts";

/** The reports and transitions of one agent before an instant: for diagnosis, not for checks. */
export function trace(
  agentId: string,
  at: Instant,
  withinMs: number,
  streams: readonly StreamRecord[],
  transitions: readonly LoggedTransition[],
  log: Pick<FaultLog, "second">,
): string[] {
  const lines: { at: Instant; line: string }[] = [];
  const near = (moment: Instant) => moment >= at - withinMs && moment <= at + withinMs / 4;
  for (const { order, seat, openedAt, endedAt, messages } of streams) {
    const own = messages.filter(({ agents }) => agents.includes(agentId));
    if (own.length === 0) continue;
    if (near(openedAt)) lines.push({ at: openedAt, line: `stream ${order} of ${seat} opens` });
    if (endedAt !== undefined && near(endedAt)) lines.push({ at: endedAt, line: `stream ${order} ends` });
    for (const { sequence, sentAt, ackedAt, reports, refused } of own) {
      if (!near(sentAt)) continue;
      const acked = ackedAt === undefined ? "never acknowledged" : `acknowledged after ${ackedAt - sentAt} ms`;
      const said = reports.get(agentId) ?? "beats";
      const outcome = refused.has(agentId) ? `refused, ${acked}` : acked;
      lines.push({ at: sentAt, line: `stream ${order} message ${sequence}: ${said}, ${outcome}` });
    }
  }
  for (const transition of transitions) {
    if (transition.agentId !== agentId || !near(transition.at)) continue;
    const { from, to, cause, revision } = transition;
    lines.push({ at: transition.at, line: `LOG ${from} to ${to} by ${cause}, revision ${revision}` });
  }
  return lines.sort((one, other) => one.at - other.at).map((one) => `${log.second(one.at)} ${agentId}: ${one.line}`);
}
