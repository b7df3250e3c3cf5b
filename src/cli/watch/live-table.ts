import { AGENT_STATUSES } from "../../contract/words.ts";
import { agentColumns, statusCell, transitionDetails } from "../records/agent-words.ts";
import type { TransitionRecord } from "../records/records.ts";
import type { Paint } from "../terminal/paint.ts";
import { printable } from "../terminal/printable.ts";
import type { ScreenSize } from "../terminal/screen.ts";
import { type Column, Table } from "../terminal/table.ts";
import { clip } from "../terminal/text-width.ts";
import { timeWords } from "../terminal/times.ts";
import type { WatchedAgents } from "./watched-agents.ts";

/** Of the rows below the heading: the rest is for what happened. */
const SHARE_OF_AGENTS = 0.6;
const FIXED_ROWS = 6;
/** Below so many rows there is no room for what happened. */
const FEWEST_ROWS_WITH_NEWS = 12;

export interface LiveView {
  readonly address: string;
  readonly agents: WatchedAgents;
  readonly nowMs: number;
}

/** The lines of the live table: as many as there are rows at most, each shorter than the screen. */
export function liveLines({ address, agents, nowMs }: LiveView, size: ScreenSize, paint: Paint): string[] {
  const columns = size.columns - 1;
  const room = Math.max(1, size.rows - FIXED_ROWS);
  const withNews = size.rows >= FEWEST_ROWS_WITH_NEWS && agents.newest.length > 0;
  const most = withNews ? Math.max(1, Math.floor(room * SHARE_OF_AGENTS)) : room;
  const rows = agents.shown(most);
  const hidden = agents.size - rows.length;
  const lines = [
    paint(
      "heading",
      clip(`Agents at ${printable(address)}: ${agents.size}, as of revision ${agents.revision}`, columns),
    ),
    countLine(agents, columns, paint),
    "",
    ...new Table(tableColumns(nowMs), { paint, columns: size.columns }).lines(rows),
    ...(hidden > 0 ? [paint("dim", clip(`… and ${hidden} more; these changed last`, columns))] : []),
  ];
  const left = size.rows - lines.length - 2;
  const news = withNews && left > 1 ? newsLines(agents.newest.slice(0, left - 1), nowMs, size.columns, paint) : [];
  const last =
    agents.cutOff === undefined
      ? paint("dim", clip("Ctrl-C ends it.", columns))
      : paint("alarm", clip(`The watch is cut off: ${printable(agents.cutOff)}. Trying again.`, columns));
  const blank = Array.from({ length: Math.max(0, size.rows - lines.length - news.length - 2) }, () => "");
  return [...lines, ...(news.length > 0 ? ["", ...news] : [""]), ...blank, last].slice(0, size.rows);
}

function countLine(agents: WatchedAgents, columns: number, paint: Paint): string {
  const { counts } = agents;
  const parts = AGENT_STATUSES.map((status) => `${status} ${counts[status]}`);
  if (parts.join("  ").length > columns) return clip(parts.join("  "), columns);
  return AGENT_STATUSES.map((status, index) => paint(counts[status] === 0 ? "dim" : status, parts[index] ?? "")).join(
    "  ",
  );
}

/** Heartbeats and users are nothing that a watch tells, or that moves. */
function tableColumns(nowMs: number) {
  return agentColumns(nowMs).filter(({ heading }) => heading !== "HEARTBEAT" && heading !== "USER");
}

function newsLines(newest: readonly TransitionRecord[], nowMs: number, columns: number, paint: Paint): string[] {
  const look: readonly Column<TransitionRecord>[] = [
    { heading: "TIME", cell: ({ occurredAt }) => timeWords(occurredAt, nowMs) },
    { heading: "AGENT", cell: ({ agentId }) => agentId },
    { heading: "FROM", cell: ({ from }) => statusCell(from, "-") },
    { heading: "TO", cell: ({ to }) => statusCell(to, "-") },
    { heading: "CAUSE", cell: ({ cause }) => cause },
    { heading: "DETAILS", cell: (transition) => transitionDetails(transition, nowMs), optional: true },
  ];
  return new Table(look, { paint, columns }).lines(newest);
}
