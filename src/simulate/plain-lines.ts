import type { TransitionView } from "harborforge-agents-client";
import { AGENT_STATUSES } from "../../common/contract/enum-names.ts";
import { counted } from "../cli/terminal/counted.ts";
import { wrapped } from "../cli/terminal/wrap.ts";
import { sizeOf, type Tally } from "./fleet-tally.ts";
import { clockOf, countsText, reasonOf, sumOf, timeOf } from "./format.ts";
import type { SimulationView } from "./view.ts";

const SUMMARY_COLUMNS = 80;

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

/** The summary at the end of the simulation, in lines of at most 80 columns. */
export function closingLines(view: SimulationView): string[] {
  return closingSentences(view).flatMap((sentence) => wrapped(sentence, SUMMARY_COLUMNS));
}

function closingSentences(view: SimulationView): string[] {
  const { totals, claimed, refused, refusedBeats, claws, all, killed, lostAlive, lostInOutage } = view;
  const rejected = sumOf(refused);
  const reasons = refused.size === 0 ? "" : ` (${countsText(refused)})`;
  const causes = totals.causes.size === 0 ? "" : `: ${countsText(totals.causes)}`;
  const loss =
    lostAlive === 0
      ? "No agent that sent heartbeats lost its lease."
      : `${counted(lostAlive, "agent")} that sent heartbeats lost ${lostAlive === 1 ? "its lease" : "their leases"}: this is a fault.`;
  const outage = `${counted(lostInOutage, "lease")} expired while the simulation itself did not run or had no network: this is no fault of the service.`;
  return [
    `Duration ${clockOf(view.elapsedMs)}: ${counted(sizeOf(all), "agent")} on ${counted(claws.length, "claw")}, ${counted(totals.transitions, "transition")}${causes}.`,
    `The calendar claimed ${counted(claimed, "agent")}; ${counted(rejected, "claim")} ${rejected === 1 ? "was" : "were"} rejected${reasons}.`,
    ...(refusedBeats.size === 0 ? [] : [`Beats that the service rejected or changed: ${countsText(refusedBeats)}.`]),
    `${counted(totals.recovered, "exhaustion")} recovered, ${counted(totals.lost, "lease")} expired, ${counted(totals.returned, "agent")} came back.`,
    ...(lostAlive === 0 ? [`Claws killed: ${killed}. ${loss}`] : [`Claws killed: ${killed}.`, loss]),
    ...(lostInOutage === 0 ? [] : [outage]),
  ];
}

/** The summary as JSON, for programs. */
export function closingDocument(view: SimulationView): object {
  const { totals, claimed, refused, refusedBeats, claws, all, killed, revisions, elapsedMs } = view;
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
    leasesEndedOfBeatingAgents: view.lostAlive,
    leasesEndedInOwnOutages: view.lostInOutage,
    cameBack: totals.returned,
  };
}

function tallyText(tally: Tally): string {
  return AGENT_STATUSES.map((status) => `${status}=${tally[status]}`).join(" ");
}
