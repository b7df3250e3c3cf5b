import { waitInWords } from "./message-waits.ts";
import type { ProviderFailure } from "./provider-error.ts";
import { BUDGETS, type Budget, type BudgetFamily, DATE_ZONES, WAIT_FIELDS, WAIT_HEADERS } from "./wait-sources.ts";
import { type AnsweredAt, waitOf } from "./wait-values.ts";

/** A wait in milliseconds, and where it is from. */
export interface Wait {
  readonly ms: number;
  readonly evidence: string;
}

/** The service rejects later deadlines. They come from a mistake of units. */
const FURTHEST_MS = 366 * 24 * 3_600_000;

/**
 * The wait that an error tells, from the strongest evidence that tells one: a field, a header for this request, a budget that
 * is used up, the message, and a budget that is not known to be used up.
 *
 * @param budgets whether budgets tell a wait: they say nothing of an empty account
 */
export function waitOfFailure(failure: ProviderFailure, now: AnsweredAt, budgets: boolean): Wait | undefined {
  const answeredAt = dateOf(failure) ?? now;
  for (const { name, unit } of WAIT_FIELDS) {
    for (const value of failure.field(name)) {
      const ms = plausible(waitOf(value, unit, answeredAt));
      if (ms !== undefined) return { ms, evidence: name };
    }
  }
  for (const { name, unit } of WAIT_HEADERS) {
    const ms = plausible(waitOf(failure.header(name), unit, answeredAt));
    if (ms !== undefined) return { ms, evidence: name };
  }
  const states = budgets ? BUDGETS.map((family) => ({ family, state: stateOf(family, failure, answeredAt) })) : [];
  for (const { family, state } of states) {
    if (state.usedUp !== undefined) return { ms: state.usedUp, evidence: family.name };
  }
  const offset = DATE_ZONES.find(({ names }) => names.some((name) => failure.names.has(name)))?.offset;
  const told = plausible(waitInWords(failure.text, answeredAt, offset));
  if (told !== undefined) return { ms: told, evidence: "message" };
  for (const { family, state } of states) {
    if (state.open !== undefined) return { ms: state.open, evidence: family.name };
  }
  return undefined;
}

/** The longest waits of the budgets of a family. */
interface BudgetState {
  /** Of those that are used up. */
  readonly usedUp: number | undefined;
  /** Of those of which it is unknown. */
  readonly open: number | undefined;
}

function stateOf(family: BudgetFamily, failure: ProviderFailure, answeredAt: AnsweredAt): BudgetState {
  const waits = family.budgets.flatMap((budget) => {
    const ms = budget.reset
      .map((name) => plausible(waitOf(failure.header(name), "any", answeredAt)))
      .find((wait) => wait !== undefined);
    return ms === undefined ? [] : [{ budget, ms, usedUp: isUsedUp(budget, failure) }];
  });
  const claim = family.claim === undefined ? undefined : failure.header(family.claim)?.toLowerCase();
  const claimed = waits.filter(
    ({ budget, usedUp }) => usedUp === undefined && claim !== undefined && budget.claim === claim,
  );
  const refusing = waits.filter(({ usedUp }) => usedUp === true);
  const unknown = waits.filter(({ usedUp }) => usedUp === undefined);
  // A budget of the day with something left is not what refused, if a shorter one may be.
  const left = waits.filter(({ usedUp }) => usedUp === false);
  const shorter = left.filter(({ budget }) => !budget.reset.some((name) => name.endsWith("-day")));
  const open = unknown.length > 0 ? unknown : shorter.length > 0 ? shorter : left;
  return {
    usedUp: longest(refusing.length > 0 ? refusing : claimed),
    open: family.complete === true && left.length > 0 && unknown.length === 0 ? undefined : longest(open),
  };
}

function longest(waits: readonly { readonly ms: number }[]): number | undefined {
  return waits.length === 0 ? undefined : Math.max(...waits.map(({ ms }) => ms));
}

/** undefined if the response does not say. */
function isUsedUp(budget: Budget, failure: ProviderFailure): boolean | undefined {
  const status = budget.status === undefined ? undefined : failure.header(budget.status);
  if (status !== undefined) return status.toLowerCase() === "rejected";
  const used = budget.usedPercent === undefined ? undefined : Number(failure.header(budget.usedPercent));
  if (used !== undefined && !Number.isNaN(used)) return used >= 100;
  const remaining = budget.remaining === undefined ? undefined : Number(failure.header(budget.remaining));
  return remaining === undefined || Number.isNaN(remaining) ? undefined : remaining <= 0;
}

/** Ignores times in the past, and those that are too far ahead. The service chooses then. */
function plausible(ms: number | undefined): number | undefined {
  return ms !== undefined && ms > 0 && ms <= FURTHEST_MS ? Math.ceil(ms) : undefined;
}

/** The provider's clock, for deadlines that are moments. It may differ from ours. */
function dateOf(failure: ProviderFailure): AnsweredAt | undefined {
  const date = failure.header("date");
  const since = waitOf(date, "moment", 0);
  return since !== undefined && since > 0 ? since : undefined;
}
