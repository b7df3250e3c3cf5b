import { stripVTControlCharacters } from "node:util";
import type { TransitionView } from "harborforge-agents-client";
import { AGENT_STATUSES } from "../../common/contract/enum-names.ts";
import { counted } from "../cli/terminal/counted.ts";
import type { Paint } from "../cli/terminal/paint.ts";
import { printable } from "../cli/terminal/printable.ts";
import type { ScreenSize } from "../cli/terminal/screen.ts";
import { clip, padEnd, padStart, widthOf } from "../cli/terminal/text-width.ts";
import { sizeOf, type Tally } from "./fleet-tally.ts";
import { clockOf, countsText, reasonOf, recoveriesOf, spanOf, statusText, sumOf, timeOf } from "./format.ts";
import type { ClawLine, SimulationView } from "./view.ts";

const FEWEST_CLAWS = 3;
/** The rows besides claws and transitions. */
const OTHER_ROWS = 13;
const COLUMNS = [9, 9, 7, 11, 9];

/**
 * The lines of the live table: at most as many as the screen has rows. No line reaches the last column, because
 * terminals differ in how they erase the rest of a line after writing there.
 */
export function tableLines(view: SimulationView, size: ScreenSize, paint: Paint): string[] {
  const { rows } = size;
  const columns = size.columns - 1;
  const { pace, totals } = view;
  const title = `HarborForge Agents, a simulation at ${view.address}`;
  const { shown, hidden, hiddenDown } = chooseClaws(view.claws, rows);
  const top = [
    `${paint("heading", title)}${clockOf(view.elapsedMs).padStart(Math.max(2, columns - title.length))}`,
    "",
    paint("dim", rowOf("claw", [...AGENT_STATUSES.map((status) => statusText(status, "")), "process"])),
    ...shown.map(({ name, tally, doing }) => rowOf(name, [...countsOf(tally, paint), doing])),
    ...(hidden > 0 ? [paint("dim", hiddenText(hidden, hiddenDown))] : []),
    rowOf("all", [...countsOf(view.all, paint), counted(sizeOf(view.all), "agent")]),
    "",
    `Heartbeat every ${spanOf(pace.intervalMs)}, lease ${spanOf(pace.leaseMs)}. ` +
      `Recovered ${totals.recovered}, lost ${totals.lost}, came back ${totals.returned}.`,
    `Calendar: ${view.claimed} claimed, ${sumOf(view.refused)} rejected${
      view.refused.size === 0 ? "" : `: ${countsText(view.refused)}`
    }`,
    listed("Exhausted, back in: ", recoveriesOf(view.exhausted, view.now), columns),
    view.notice === undefined ? "" : paint("alarm", printable(view.notice)),
    "",
  ];
  const bottom = [paint("dim", printable(view.note)), paint("dim", "Stop with Ctrl-C.")];
  const room = rows - top.length - bottom.length;
  const newest = view.newest.slice(0, Math.max(0, room)).map((transition) => changeLine(transition, paint));
  const blank = Array.from({ length: Math.max(0, room - newest.length) }, () => "");
  return [...top, ...newest, ...blank, ...bottom].slice(0, rows).map((line) => clipped(line, columns));
}

/**
 * The claws to show: all if they fit in a third of the screen. Otherwise those that do not run come first, with as many
 * rows as they need, then those with the most offline agents.
 */
function chooseClaws(claws: readonly ClawLine[], rows: number) {
  const isDown = ({ runs, tally }: ClawLine): boolean =>
    !runs || (tally.offline > 0 && tally.offline === sizeOf(tally));
  const down = claws.filter(isDown).length;
  const third = Math.max(FEWEST_CLAWS, Math.floor(rows / 3));
  const most = Math.max(third, Math.min(down, rows - OTHER_ROWS));
  if (claws.length <= most) return { shown: claws, hidden: 0, hiddenDown: 0 };
  const urgency = (claw: ClawLine): number => (isDown(claw) ? Number.POSITIVE_INFINITY : claw.tally.offline);
  const order = [...claws].sort((one, other) => compare(urgency(other), urgency(one)));
  return { shown: order.slice(0, most), hidden: claws.length - most, hiddenDown: Math.max(0, down - most) };
}

/** Infinities are equal, so that claws that are down keep their order. */
function compare(one: number, other: number): number {
  return one === other ? 0 : one - other;
}

function hiddenText(hidden: number, down: number): string {
  return `and ${hidden} more ${hidden === 1 ? "claw" : "claws"}${down === 0 ? "" : `, ${down} of them down`}`;
}

function rowOf(name: string, cells: readonly string[]): string {
  const numbers = cells.slice(0, COLUMNS.length).map((cell, index) => padStart(cell, COLUMNS[index] ?? 0));
  return `${padEnd(name, 13)}${numbers.join("")}  ${cells.slice(COLUMNS.length).join(" ")}`;
}

function countsOf(tally: Tally, paint: Paint): string[] {
  return AGENT_STATUSES.map((status) => (tally[status] === 0 ? paint("dim", "0") : paint(status, `${tally[status]}`)));
}

function changeLine(transition: TransitionView, paint: Paint): string {
  const { occurredAt, agentId, from, to } = transition;
  const before = padEnd(styled(from, "new", paint), 9);
  const after = padEnd(styled(to, "deleted", paint), 9);
  return `${paint("dim", timeOf(occurredAt))}  ${padEnd(printable(agentId), 16)}${before} → ${after}  ${reasonOf(transition)}`;
}

function styled(status: TransitionView["from"], none: string, paint: Paint): string {
  const words = statusText(status, none);
  return status === undefined || status === "unknown" ? words : paint(status, words);
}

/** As many items as fit on a line, and the number of the others. */
function listed(head: string, items: readonly string[], columns: number): string {
  if (items.length === 0) return `${head}none`;
  for (let shown = items.length; shown > 0; shown -= 1) {
    const more = items.length === shown ? "" : ` and ${items.length - shown} more`;
    const line = `${head}${items.slice(0, shown).join(", ")}${more}`;
    if (line.length <= columns) return line;
  }
  return `${head}${items.length}`;
}

/** Cuts a line to the width. A cut line loses its colours, so that no colour continues. */
function clipped(line: string, columns: number): string {
  return widthOf(line) <= columns ? line : clip(stripVTControlCharacters(line), columns);
}
