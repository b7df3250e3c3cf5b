import type { Page } from "../calls/service-calls.ts";
import { printable, printableJson } from "../terminal/printable.ts";
import type { Printer } from "../terminal/printer.ts";
import { type Cell, type Column, Table } from "../terminal/table.ts";
import { padEnd } from "../terminal/text-width.ts";
import type { OutputFormat } from "./output-option.ts";
import type { AsMessage } from "./records.ts";

/** A fact of an item: its name and value. */
export type Fact = readonly [name: string, value: string | Cell];

/**
 * Prints one item. The table omits empty facts.
 *
 * @throws OutputClosed
 */
export async function printOne<Item extends AsMessage>(
  out: Printer,
  format: OutputFormat,
  item: Item,
  facts: (item: Item) => readonly Fact[],
): Promise<void> {
  if (format !== "table") return await out.print(`${jsonText(item.json, format === "json")}\n`);
  await out.print(factLines(facts(item), out).join(""));
}

function factLines(facts: readonly Fact[], { paint }: Printer): string[] {
  const cells = facts.map(([name, value]) => [name, typeof value === "string" ? { text: value } : value] as const);
  const shown = cells.filter(([, { text }]) => text !== "");
  const width = Math.max(0, ...shown.map(([name]) => name.length));
  return shown.map(([name, { text, style }]) => {
    const safe = printable(text);
    return `${paint("dim", padEnd(name, width))}  ${style === undefined ? safe : paint(style, safe)}\n`;
  });
}

export interface ListLook<Item> {
  /** The name of the list in the contract's response. */
  readonly name: string;
  readonly columns: readonly Column<Item>[];
  /** The message for an empty list. */
  readonly none: string;
}

/**
 * Prints a list page by page.
 *
 * @throws OutputClosed
 */
export async function printList<Item extends AsMessage>(
  { out, err }: { readonly out: Printer; readonly err: Printer },
  format: OutputFormat,
  pages: AsyncIterable<Page<Item>>,
  look: ListLook<Item>,
): Promise<void> {
  switch (format) {
    case "table":
      return await printTable(out, err, pages, look);
    case "json":
      return await printDocument(out, pages, look.name);
    case "jsonl":
      for await (const { items } of pages) {
        if (items.length > 0) await out.print(items.map(({ json }) => `${jsonText(json, false)}\n`).join(""));
      }
  }
}

async function printTable<Item>(
  out: Printer,
  err: Printer,
  pages: AsyncIterable<Page<Item>>,
  { columns, none }: ListLook<Item>,
): Promise<void> {
  const table = new Table(columns, out);
  let shown = 0;
  let nextPageToken = "";
  for await (const page of pages) {
    ({ nextPageToken } = page);
    shown += page.items.length;
    if (page.items.length > 0) await out.print(`${table.lines(page.items).join("\n")}\n`);
  }
  if (shown === 0) await err.print(`${none}\n`);
  if (nextPageToken !== "") {
    await err.print(`There are more. Continue with --page-token ${printable(nextPageToken)}, or raise --limit.\n`);
  }
}

/** Prints the contract's response as if all pages were one. Pages are not kept: a list may be larger than memory. */
async function printDocument<Item extends AsMessage>(
  out: Printer,
  pages: AsyncIterable<Page<Item>>,
  name: string,
): Promise<void> {
  // Print nothing before the first page: a rejected call must not leave half a document.
  let between = `{\n  ${JSON.stringify(name)}: [\n`;
  let last: Page<Item> | undefined;
  for await (const page of pages) {
    last = page;
    for (const { json } of page.items) {
      await out.print(`${between}    ${jsonText(json, true).replaceAll("\n", "\n    ")}`);
      between = ",\n";
    }
  }
  const end = between === ",\n" ? "\n  ]" : `${between.trimEnd()}]`;
  const revision = last?.revision === undefined ? "" : `,\n  "revision": "${last.revision}"`;
  const rest = last?.nextPageToken ?? "";
  const token = rest === "" ? "" : `,\n  "nextPageToken": ${JSON.stringify(rest)}`;
  await out.print(`${end}${revision}${token}\n}\n`);
}

/** JSON that is safe to print. */
export function jsonText(json: unknown, indented: boolean): string {
  return printableJson(JSON.stringify(json, null, indented ? 2 : 0));
}
