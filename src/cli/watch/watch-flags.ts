import type { SelectionFlags } from "../commands/selection.ts";

export interface WatchFlags extends SelectionFlags {
  readonly from?: bigint;
  readonly duration?: number;
}
