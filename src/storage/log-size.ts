import type { Micros } from "../../common/contract/time.ts";
import type { Database } from "./database.ts";
import { namedQuery } from "./queries.ts";

const MEASURE_LOG = namedQuery("measure-log");

/** The size of the log of transitions. */
export interface LogSize {
  readonly transitions: number;
  /** The moment of the oldest transition; null: the log is empty. */
  readonly oldestAt: Micros | null;
}

export async function measureLog(database: Pick<Database, "feed">): Promise<LogSize> {
  const { rows } = await database.feed.query<{ transitions: bigint; oldest_at: Micros | null }>({ ...MEASURE_LOG });
  const [row] = rows;
  return { transitions: Number(row?.transitions ?? 0n), oldestAt: row?.oldest_at ?? null };
}
