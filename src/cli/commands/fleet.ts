import type { Command } from "commander";
import { AGENT_STATUSES } from "../../../common/contract/enum-names.ts";
import { formatDuration } from "../../config/values.ts";
import { EXIT_OK } from "../exit-codes.ts";
import { styleOf } from "../records/agent-columns.ts";
import { jsonText } from "../records/output.ts";
import type { FleetRecord, StatusCounts } from "../records/records.ts";
import { type Shell, serviceCommand } from "../shell.ts";
import type { Printer } from "../terminal/printer.ts";
import { type Column, Table } from "../terminal/table.ts";
import { padEnd, padStart } from "../terminal/text-width.ts";
import { timeText } from "../terminal/times.ts";
import { addSelectionOptions, filterOf, type SelectionFlags } from "./selection.ts";

const ALL_STATUSES = [...AGENT_STATUSES, "suspect", "unknown"] as const;
const LONGEST_BAR = 40;

export function define(command: Command, shell: Shell): void {
  command.description("count agents by status and claw; show the brake and the pace of heartbeats");
  addSelectionOptions(command);
  const examples = ["harborforge-agents fleet", "harborforge-agents fleet --claw claw-1 -o json"];
  serviceCommand<SelectionFlags>(shell, command, examples, async ({ caller, calls, out }, flags) => {
    const fleet = await calls.getFleet(caller, filterOf(flags));
    const { output } = flags;
    const text =
      output === "table" ? fleetLines(fleet, out, Date.now()).join("\n") : jsonText(fleet.json, output === "json");
    await out.print(`${text}\n`);
    return EXIT_OK;
  });
}

/** The counts of the fleet as lines of text. */
function fleetLines(fleet: FleetRecord, out: Printer, nowMs: number): string[] {
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
