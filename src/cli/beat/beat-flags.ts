import type { ExhaustionFlags } from "../commands/exhaustion-options.ts";

export const REPORTS = ["idle", "on_call", "busy", "exhausted"] as const;
/** The statuses that an agent may report. */
export type ReportStatus = (typeof REPORTS)[number];

export interface BeatFlags extends ExhaustionFlags {
  readonly claw?: string;
  readonly status?: ReportStatus;
  readonly interactive?: true;
  readonly duration?: number;
  readonly goodbye: boolean;
}
