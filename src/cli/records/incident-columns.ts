import type { Column } from "../terminal/table.ts";
import { timeText } from "../terminal/times.ts";
import type { IncidentRecord } from "./incident-record.ts";

/**
 * The columns of a list of incidents.
 *
 * @param nowMs the present, in milliseconds since 1970
 */
export function incidentColumns(nowMs: number): readonly Column<IncidentRecord>[] {
  return [
    { heading: "INCIDENT", cell: ({ incidentId }) => incidentId },
    { heading: "CLAW", cell: ({ clawIdentifiers }) => clawIdentifiers.join(", ") },
    { heading: "SINCE", cell: ({ since }) => timeText(since, nowMs) },
    {
      heading: "ENDED",
      cell: ({ endedAt }) => (endedAt === undefined ? { text: "silent", style: "alarm" } : timeText(endedAt, nowMs)),
    },
    { heading: "AGENTS", cell: ({ agents }) => String(agents), align: "right" },
    { heading: "BACK", cell: ({ agentsBack }) => String(agentsBack), align: "right" },
    { heading: "HEARTBEAT", cell: ({ lastHeartbeat }) => timeText(lastHeartbeat, nowMs), optional: true },
  ];
}
