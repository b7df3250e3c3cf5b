import type { Report } from "../harness/report.ts";

export interface Drawing {
  readonly file: string;
  readonly svg: string;
}

/** All that can be drawn of these results. */
export function chartsOf(_report: Report): Drawing[] {
  return [];
}
