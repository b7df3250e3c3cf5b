import type { TransitionView } from "harborforge-agents-client";
import { AGENT_STATUSES } from "../../common/contract/enum-names.ts";
import { sizeOf, type Tally } from "./fleet-tally.ts";
import { clockOf, countsText, reasonOf, sumOf, timeOf } from "./format.ts";
import type { SimulationView } from "./view.ts";

/** A transition as a line. Programs may parse it: statuses and cause have their names in the contract. */
export function transitionLine(transition: TransitionView): string {
  const { occurredAt, agentId, from, to, cause } = transition;
  const change = `${from ?? "none"} -> ${to ?? "none"}`;
  return `${timeOf(occurredAt)} ${agentId} ${change} [${cause}] ${reasonOf(transition)}`;
}

/** The current counts, by claw and in total. */
export function summaryLines(view: SimulationView): string[] {
  const at = clockOf(view.elapsedMs);
  return [
    ...view.claws.map(({ name, tally, doing }) => `summary ${at} ${name} ${tallyText(tally)} (${doing})`),
    `summary ${at} all ${tallyText(view.all)}`,
  ];
}

/** The summary at the end of the simulation. */
export function closingLines(view: SimulationView): string[] {
  const { totals, claimed, refused, refusedBeats, claws, all, killed, lostAlive } = view;
  const reasons = refused.size === 0 ? "" : ` (${countsText(refused)})`;
  const causes = totals.causes.size === 0 ? "" : `: ${countsText(totals.causes)}`;
  const loss =
    lostAlive === 0
      ? "No agent that sent heartbeats lost its lease."
      : `${lostAlive} agents that sent heartbeats lost their leases: this is a fault.`;
  return [
    `Duration ${clockOf(view.elapsedMs)}: ${sizeOf(all)} agents on ${claws.length} ${claws.length === 1 ? "claw" : "claws"}, ${totals.transitions} transitions${causes}.`,
    `The calendar claimed ${claimed} agents; ${sumOf(refused)} claims were rejected${reasons}.`,
    ...(refusedBeats.size === 0 ? [] : [`Beats that the service rejected or changed: ${countsText(refusedBeats)}.`]),
    `${totals.recovered} exhaustions recovered, ${totals.lost} leases expired, ${totals.returned} agents came back.`,
    `Claws killed: ${killed}. ${loss}`,
  ];
}

/** The summary as JSON, for programs. */
export function closingDocument(view: SimulationView): object {
  const { totals, claimed, refused, refusedBeats, claws, all, killed, lostAlive, revisions, elapsedMs } = view;
  return {
    seconds: Math.round(elapsedMs / 1_000),
    claws: claws.length,
    agents: sizeOf(all),
    statuses: all,
    transitions: totals.transitions,
    causes: Object.fromEntries(totals.causes),
    afterRevision: String(revisions[0]),
    revision: String(revisions[1]),
    claimed,
    claimsRefused: Object.fromEntries(refused),
    beatsRefused: Object.fromEntries(refusedBeats),
    clawsKilled: killed,
    recovered: totals.recovered,
    leasesEnded: totals.lost,
    leasesEndedOfBeatingAgents: lostAlive,
    cameBack: totals.returned,
  };
}

function tallyText(tally: Tally): string {
  return AGENT_STATUSES.map((status) => `${status}=${tally[status]}`).join(" ");
}
