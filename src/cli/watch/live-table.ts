import { AGENT_STATUSES } from "../../../common/contract/enum-names.ts";
import { agentColumns, statusCell, styleOf, transitionDetails } from "../records/agent-columns.ts";
import type { TransitionRecord } from "../records/records.ts";
import type { Paint } from "../terminal/paint.ts";
import { printable } from "../terminal/printable.ts";
import type { ScreenSize } from "../terminal/screen.ts";
import { type Column, Table } from "../terminal/table.ts";
import { clip } from "../terminal/text-width.ts";
import { timeText } from "../terminal/times.ts";
import type { WatchedAgents } from "./watched-agents.ts";

/** The share of rows for agents. The other rows are for transitions. */
const SHARE_OF_AGENTS = 0.6;
const FIXED_ROWS = 6;
/** With fewer rows there is no room for transitions. */
const MIN_ROWS_WITH_CHANGES = 12;

export interface LiveView {
  readonly address: string;
  readonly agents: WatchedAgents;
  readonly nowMs: number;
}

/** The lines of the live table: at most as many as the screen has rows, each shorter than its width. */
export function liveLines({ address, agents, nowMs }: LiveView, size: ScreenSize, paint: Paint): string[] {
  const columns = size.columns - 1;
  const room = Math.max(1, size.rows - FIXED_ROWS);
  const withChanges = size.rows >= MIN_ROWS_WITH_CHANGES && agents.newest.length > 0;
  const most = withChanges ? Math.max(1, Math.floor(room * SHARE_OF_AGENTS)) : room;
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
    ...(hidden > 0 ? [paint("dim", clip(`… and ${hidden} more; the shown ones changed last`, columns))] : []),
  ];
  const left = size.rows - lines.length - 2;
  const changes =
    withChanges && left > 1 ? changeLines(agents.newest.slice(0, left - 1), nowMs, size.columns, paint) : [];
  const last =
    agents.disconnectedBy === undefined
      ? paint("dim", clip("Stop with Ctrl-C.", columns))
      : paint("alarm", clip(`Disconnected: ${printable(agents.disconnectedBy)}. Reconnecting.`, columns));
  const blank = Array.from({ length: Math.max(0, size.rows - lines.length - changes.length - 2) }, () => "");
  return [...lines, ...(changes.length > 0 ? ["", ...changes] : [""]), ...blank, last].slice(0, size.rows);
}

function countLine(agents: WatchedAgents, columns: number, paint: Paint): string {
  const { counts } = agents;
  const shown = [...AGENT_STATUSES, ...(counts.suspect > 0 ? (["suspect"] as const) : [])];
  const parts = shown.map((status) => `${status} ${counts[status]}`);
  if (parts.join("  ").length > columns) return clip(parts.join("  "), columns);
  const styles = shown.map((status) => (counts[status] === 0 ? "dim" : styleOf(status)) ?? "dim");
  return parts.map((part, index) => paint(styles[index] ?? "dim", part)).join("  ");
}

/** A watch does not report heartbeats, and users do not change. */
function tableColumns(nowMs: number) {
  return agentColumns(nowMs).filter(({ heading }) => heading !== "HEARTBEAT" && heading !== "USER");
}

function changeLines(newest: readonly TransitionRecord[], nowMs: number, columns: number, paint: Paint): string[] {
  const look: readonly Column<TransitionRecord>[] = [
    { heading: "TIME", cell: ({ occurredAt }) => timeText(occurredAt, nowMs) },
    { heading: "AGENT", cell: ({ agentId }) => agentId },
    { heading: "FROM", cell: ({ from }) => statusCell(from, "-") },
    { heading: "TO", cell: ({ to }) => statusCell(to, "-") },
    { heading: "CAUSE", cell: ({ cause }) => cause },
    { heading: "DETAILS", cell: (transition) => transitionDetails(transition, nowMs), optional: true },
  ];
  return new Table(look, { paint, columns }).lines(newest);
}
