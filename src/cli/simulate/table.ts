import { stripVTControlCharacters } from "node:util";
import type { TransitionView } from "../../client/views.ts";
import { AGENT_STATUSES, type AgentStatus } from "../../domain/agent.ts";
import { sizeOf, type Tally } from "./fleet.ts";
import type { DemoView } from "./view.ts";
import { clockOf, reasonOf, recoveriesOf, refusalsOf, spanOf, statusWords, sumOf, timeOf } from "./words.ts";

export interface ScreenSize {
  readonly columns: number;
  readonly rows: number;
}

type Paint = (style: Style, text: string) => string;
type Style = AgentStatus | "title" | "dim" | "alarm";

/** Codes of ANSI's "select graphic rendition". */
const STYLES: Readonly<Record<Style, string>> = {
  idle: "32",
  on_call: "36",
  busy: "33",
  exhausted: "35",
  offline: "31",
  title: "1",
  dim: "2",
  alarm: "1;31",
};

const plain: Paint = (_, text) => text;
const coloured: Paint = (style, text) => `\u001b[${STYLES[style]}m${text}\u001b[0m`;

const COLUMNS = [9, 9, 7, 11, 9];

/**
 * The lines of the live picture: at most as many as there are rows. None reaches the last column: after writing there,
 * terminals differ in what erasing the rest of the line takes away.
 */
export function tableLines(view: DemoView, size: ScreenSize, colour: boolean): string[] {
  const { rows } = size;
  const columns = size.columns - 1;
  const paint = colour ? coloured : plain;
  const { pace, totals } = view;
  const title = `HarborForge Agents, a demo at ${view.address}`;
  const top = [
    `${paint("title", title)}${clockOf(view.elapsedMs).padStart(Math.max(2, columns - title.length))}`,
    "",
    paint("dim", rowOf("claw", [...AGENT_STATUSES.map((status) => statusWords(status, "")), "process"])),
    ...view.claws.map(({ name, tally, doing }) => rowOf(name, [...countsOf(tally, paint), doing])),
    rowOf("all", [...countsOf(view.all, paint), `${sizeOf(view.all)} agents`]),
    "",
    `Heartbeat every ${spanOf(pace.intervalMs)}, lease ${spanOf(pace.leaseMs)}. ` +
      `Recovered ${totals.recovered}, lost ${totals.lost}, came back ${totals.returned}.`,
    `Calendar: ${view.claimed} claimed, ${sumOf(view.refused)} refused${
      view.refused.size === 0 ? "" : `: ${refusalsOf(view.refused)}`
    }`,
    listed("Exhausted, back in: ", recoveriesOf(view.exhausted, view.now), columns),
    view.notice === undefined ? "" : paint("alarm", view.notice),
    "",
  ];
  const bottom = [paint("dim", view.note), paint("dim", "Ctrl-C ends it; the agents say goodbye.")];
  const room = rows - top.length - bottom.length;
  const newest = view.newest.slice(0, Math.max(0, room)).map((transition) => newsLine(transition, paint));
  const blank = Array.from({ length: Math.max(0, room - newest.length) }, () => "");
  return [...top, ...newest, ...blank, ...bottom].slice(0, rows).map((line) => clipped(line, columns));
}

function rowOf(name: string, cells: readonly string[]): string {
  const numbers = cells.slice(0, COLUMNS.length).map((cell, index) => padLeft(cell, COLUMNS[index] ?? 0));
  return `${name.padEnd(13)}${numbers.join("")}  ${cells.slice(COLUMNS.length).join(" ")}`;
}

function countsOf(tally: Tally, paint: Paint): string[] {
  return AGENT_STATUSES.map((status) => (tally[status] === 0 ? paint("dim", "0") : paint(status, `${tally[status]}`)));
}

function newsLine(transition: TransitionView, paint: Paint): string {
  const { occurredAt, agentId, from, to } = transition;
  const before = padRight(styled(from, "new", paint), 9);
  const after = padRight(styled(to, "deleted", paint), 9);
  return `${paint("dim", timeOf(occurredAt))}  ${agentId.padEnd(16)}${before} → ${after}  ${reasonOf(transition)}`;
}

function styled(status: TransitionView["from"], none: string, paint: Paint): string {
  const words = statusWords(status, none);
  return status === undefined || status === "unknown" ? words : paint(status, words);
}

/** As many as fit on a line, and how many more there are. */
function listed(head: string, items: readonly string[], columns: number): string {
  if (items.length === 0) return `${head}nobody`;
  for (let shown = items.length; shown > 0; shown -= 1) {
    const more = items.length === shown ? "" : ` and ${items.length - shown} more`;
    const line = `${head}${items.slice(0, shown).join(", ")}${more}`;
    if (line.length <= columns) return line;
  }
  return `${head}${items.length}`;
}

function width(text: string): number {
  return stripVTControlCharacters(text).length;
}

function padLeft(text: string, columns: number): string {
  return `${" ".repeat(Math.max(0, columns - width(text)))}${text}`;
}

function padRight(text: string, columns: number): string {
  return `${text}${" ".repeat(Math.max(0, columns - width(text)))}`;
}

/** Cut to the width; a line that has to be cut loses its colours, so that none of them runs on. */
function clipped(line: string, columns: number): string {
  return width(line) <= columns ? line : stripVTControlCharacters(line).slice(0, columns);
}
