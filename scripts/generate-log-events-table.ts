// Writes the table of log events into docs/operations.md, between its two comments.
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { logEventsTable } from "./log-events-table.ts";
import { root } from "./run-tool.ts";

const page = join(root, "docs/operations.md");
const table = /(?<=<!-- log events -->\n).*(?=\n<!-- \/log events -->)/s;
const text = await readFile(page, "utf8");
if (!table.test(text)) throw new Error(`${page} has no comments <!-- log events --> and <!-- /log events -->`);
await writeFile(
  page,
  text.replace(table, () => logEventsTable()),
);
