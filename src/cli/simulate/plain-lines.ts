import type { TransitionView } from "../../client/views.ts";
import { AGENT_STATUSES } from "../../domain/agent.ts";
import type { Tally } from "./fleet.ts";
import type { DemoView } from "./view.ts";
import { clockOf, reasonOf, refusalsOf, sumOf, timeOf } from "./words.ts";

/** One transition as a line that programs can read, too: the statuses and the cause are the contract's own words. */
export function transitionLine(transition: TransitionView): string {
  const { occurredAt, agentId, from, to, cause } = transition;
  const change = `${from ?? "none"} -> ${to ?? "none"}`;
  return `${timeOf(occurredAt)} ${agentId} ${change} [${cause}] ${reasonOf(transition)}`;
}

/** The counts at a moment, by claw and of all. */
export function summaryLines(view: DemoView): string[] {
  const at = clockOf(view.elapsedMs);
  return [
    ...view.claws.map(({ name, tally, doing }) => `summary ${at} ${name} ${tallyText(tally)} (${doing})`),
    `summary ${at} all ${tallyText(view.all)}`,
  ];
}

/** What the demo has come to, for its end. */
export function closingLines(view: DemoView): string[] {
  const { totals, claimed, refused } = view;
  const reasons = refused.size === 0 ? "" : ` (${refusalsOf(refused)})`;
  return [
    `The demo ran for ${clockOf(view.elapsedMs)} and saw ${totals.transitions} transitions.`,
    `The calendar claimed ${claimed} agents; ${sumOf(refused)} claims were refused${reasons}.`,
    `${totals.recovered} exhaustions recovered, ${totals.lost} leases ended, ${totals.returned} agents came back.`,
  ];
}

function tallyText(tally: Tally): string {
  return AGENT_STATUSES.map((status) => `${status}=${tally[status]}`).join(" ");
}
