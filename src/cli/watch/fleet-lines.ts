import { AGENT_STATUSES } from "../../../common/contract/enum-names.ts";
import { formatDuration } from "../../config/values.ts";
import { styleOf } from "../records/agent-columns.ts";
import type { FleetRecord, StatusCounts } from "../records/records.ts";
import type { Printer } from "../terminal/printer.ts";
import { type Column, Table } from "../terminal/table.ts";
import { padEnd, padStart } from "../terminal/text-width.ts";
import { timeText } from "../terminal/times.ts";

const ALL_STATUSES = [...AGENT_STATUSES, "suspect", "unknown"] as const;
const LONGEST_BAR = 40;

/** The counts of the fleet as lines of text. */
export function fleetLines(fleet: FleetRecord, out: Printer, nowMs: number): string[] {
  const { brake, intervalMs, leaseMs, claws, revision } = fleet;
  const total = sumOf(fleet.counts);
  const brakeWords =
    brake === undefined
      ? out.paint("good", "released")
      : out.paint("alarm", `engaged since ${timeText(brake.engagedAt, nowMs)}, ${brake.heldBack} agents held back`);
  const table = new Table(clawColumns(fleet.counts), out);
  return [
    `${total} ${total === 1 ? "agent" : "agents"} on ${claws.length} ${claws.length === 1 ? "claw" : "claws"}`,
    "",
    ...bars(fleet.counts, total, out),
    "",
    `Brake: ${brakeWords}`,
    `Pace: a heartbeat every ${spelled(intervalMs)}, leases of ${spelled(leaseMs)}`,
    `Revision: ${revision}`,
    ...(claws.length === 0 ? [] : ["", ...table.lines(claws)]),
  ];
}

/** The counts of the fleet as one line. */
export function fleetLine({ counts, claws, brake, revision }: FleetRecord): string {
  const words = shownStatuses(counts).map((status) => `${status} ${counts.get(status) ?? 0}`);
  const brakeWords = brake === undefined ? "" : `, the brake holds ${brake.heldBack} back`;
  return `${words.join(", ")} on ${claws.length} ${claws.length === 1 ? "claw" : "claws"}${brakeWords}, revision ${revision}`;
}

function bars(counts: StatusCounts, total: number, out: Printer): string[] {
  const shown = shownStatuses(counts);
  const digits = String(total).length;
  const room = Math.max(1, Math.min(LONGEST_BAR, (out.columns ?? 80) - digits - 20));
  return shown.map((status) => {
    const count = counts.get(status) ?? 0;
    const share = total === 0 ? 0 : count / total;
    // A small count still gets a bar.
    const length = count === 0 ? 0 : Math.max(1, Math.round(share * room));
    const percent = `${count > 0 && share < 0.01 ? "<1" : Math.round(share * 100)} %`;
    const bar = padEnd("█".repeat(length), room);
    const style = styleOf(status);
    const painted = style === undefined ? bar : out.paint(style, bar);
    return `${padEnd(status, 9)}  ${padStart(String(count), digits)}  ${painted} ${padStart(percent, 5)}`;
  });
}

type ClawRow = FleetRecord["claws"][number];

function clawColumns(all: StatusCounts): readonly Column<ClawRow>[] {
  return [
    { heading: "CLAW", cell: ({ clawIdentifier }) => clawIdentifier },
    ...shownStatuses(all).map(
      (status): Column<ClawRow> => ({
        heading: status.toUpperCase(),
        align: "right",
        // The bars above show the same counts.
        optional: true,
        cell: ({ counts }) => {
          const count = counts.get(status) ?? 0;
          return { text: String(count), style: count === 0 ? "dim" : styleOf(status) };
        },
      }),
    ),
    { heading: "ALL", align: "right", cell: ({ counts }) => String(sumOf(counts)) },
  ];
}

function shownStatuses(counts: StatusCounts) {
  return ALL_STATUSES.filter((status) => (status !== "suspect" && status !== "unknown") || counts.has(status));
}

function sumOf(counts: StatusCounts): number {
  return [...counts.values()].reduce((sum, count) => sum + count, 0);
}

function spelled(ms: number): string {
  return formatDuration(Math.round(ms));
}
