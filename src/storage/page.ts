import type { Page } from "../domain/directories.ts";

/** Makes a page from rows that were read with a limit of `limit + 1`: an extra row means that another page follows. */
export function pageOf<Row>(rows: readonly Row[], limit: number, keyOf: (row: Row) => bigint): Page<Row> {
  if (rows.length <= limit) return { rows, next: undefined };
  const shown = rows.slice(0, limit);
  const last = shown.at(-1);
  return { rows: shown, next: last === undefined ? undefined : keyOf(last) };
}
