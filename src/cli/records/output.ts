import { type Command, Option } from "commander";
import type { Page } from "../calls/directory-calls.ts";
import { printable, printableJson } from "../terminal/printable.ts";
import type { Printer } from "../terminal/printer.ts";
import { type Cell, type Column, Table } from "../terminal/table.ts";
import { padEnd } from "../terminal/text-width.ts";
import type { AsMessage } from "./records.ts";

export const OUTPUTS = ["table", "json", "jsonl"] as const;
/** `table` for people; `json`, one document, and `jsonl`, one line each, in the contract's own JSON. */
export type OutputFormat = (typeof OUTPUTS)[number];

export interface OutputFlags {
  readonly output: OutputFormat;
}

export function addOutputOption(command: Command): Command {
  return command.addOption(
    new Option("-o, --output <format>", "a table for people, or the contract's JSON: one document, or a line each")
      .choices(OUTPUTS)
      .default("table"),
  );
}

/** One fact about a thing: its name and what it is. */
export type Fact = readonly [name: string, value: string | Cell];

/** Prints one thing. Facts that are empty are left out of the table. @throws ReaderGone */
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
  const told = facts.map(([name, value]) => [name, typeof value === "string" ? { text: value } : value] as const);
  const shown = told.filter(([, { text }]) => text !== "");
  const width = Math.max(0, ...shown.map(([name]) => name.length));
  return shown.map(([name, { text, style }]) => {
    const safe = printable(text);
    return `${paint("dim", padEnd(name, width))}  ${style === undefined ? safe : paint(style, safe)}\n`;
  });
}

export interface ListLook<Item> {
  /** The list's name in the contract's answer. */
  readonly name: string;
  readonly columns: readonly Column<Item>[];
  /** What the table says of an empty list. */
  readonly none: string;
}

/** Prints a list, page by page as it comes. @throws ReaderGone */
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
    await err.print(`There are more. Go on with --page-token ${printable(nextPageToken)}, or raise --limit.\n`);
  }
}

/** The contract's answer, as if all pages were one. Nothing is kept: a list may be longer than memory. */
async function printDocument<Item extends AsMessage>(
  out: Printer,
  pages: AsyncIterable<Page<Item>>,
  name: string,
): Promise<void> {
  // Nothing is begun that a refusal would leave as half a document.
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

/** JSON that is safe to print, whatever it says. */
export function jsonText(json: unknown, indented: boolean): string {
  return printableJson(JSON.stringify(json, null, indented ? 2 : 0));
}
