import type { TransitionView } from "harborforge-agents-client";
import { AGENT_STATUSES } from "../contract/words.ts";
import { sizeOf, type Tally } from "./simulated-fleet.ts";
import type { SimulationView } from "./view.ts";
import { clockOf, countsWords, reasonOf, sumOf, timeOf } from "./words.ts";

/** One transition as a line that programs can read, too: the statuses and the cause are the contract's own words. */
export function transitionLine(transition: TransitionView): string {
  const { occurredAt, agentId, from, to, cause } = transition;
  const change = `${from ?? "none"} -> ${to ?? "none"}`;
  return `${timeOf(occurredAt)} ${agentId} ${change} [${cause}] ${reasonOf(transition)}`;
}

/** The counts at a moment, by claw and of all. */
export function summaryLines(view: SimulationView): string[] {
  const at = clockOf(view.elapsedMs);
  return [
    ...view.claws.map(({ name, tally, doing }) => `summary ${at} ${name} ${tallyText(tally)} (${doing})`),
    `summary ${at} all ${tallyText(view.all)}`,
  ];
}

/** What the simulation has come to, for its end. */
export function closingLines(view: SimulationView): string[] {
  const { totals, claimed, refused, refusedBeats, claws, all, killed, lostAlive } = view;
  const reasons = refused.size === 0 ? "" : ` (${countsWords(refused)})`;
  const causes = totals.causes.size === 0 ? "" : `: ${countsWords(totals.causes)}`;
  const loss =
    lostAlive === 0
      ? "No lease ended of an agent that was beating."
      : `${lostAlive} leases ended of agents that were beating: that should not happen.`;
  return [
    `It ran for ${clockOf(view.elapsedMs)} with ${sizeOf(all)} agents on ${claws.length} claws and saw ${totals.transitions} transitions${causes}.`,
    `The calendar claimed ${claimed} agents; ${sumOf(refused)} claims were refused${reasons}.`,
    ...(refusedBeats.size === 0 ? [] : [`Beats that were not taken as they were: ${countsWords(refusedBeats)}.`]),
    `${totals.recovered} exhaustions recovered, ${totals.lost} leases ended, ${totals.returned} agents came back.`,
    `Claws killed: ${killed}. ${loss}`,
  ];
}

/** The same for programs. */
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
