import { type Command, InvalidArgumentError, Option } from "commander";
import type { Page, PageRequest } from "../calls/service-calls.ts";

/** The largest page of the service. */
const LARGEST_PAGE = 1_000;

export interface PageFlags {
  /** The maximum number of items; infinity: all. */
  readonly limit: number;
  readonly pageToken?: string;
}

export function addPageOptions(command: Command, defaultLimit: number): Command {
  const all = defaultLimit === Number.POSITIVE_INFINITY;
  return command
    .addOption(
      new Option("--limit <number>", 'the maximum number, or "all"')
        .default(defaultLimit, all ? "all" : String(defaultLimit))
        .argParser(readLimit),
    )
    .option("--page-token <token>", "continue after an earlier page");
}

/** The pages of a list up to the limit. */
export async function* pagesOf<Item>(
  { limit, pageToken: first = "" }: PageFlags,
  ask: (request: PageRequest) => Promise<Page<Item>>,
): AsyncGenerator<Page<Item>, void> {
  let left = limit;
  let pageToken = first;
  do {
    const page = await ask({ pageSize: Math.min(left, LARGEST_PAGE), pageToken });
    yield page;
    left -= page.items.length;
    pageToken = page.nextPageToken;
  } while (pageToken !== "" && left > 0);
}

function readLimit(text: string): number {
  if (text === "all") return Number.POSITIVE_INFINITY;
  const number = /^\d{1,9}$/.test(text) ? Number(text) : 0;
  if (number >= 1) return number;
  throw new InvalidArgumentError('It must be a whole number from 1, or "all".');
}
