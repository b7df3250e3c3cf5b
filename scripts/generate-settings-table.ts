// Writes the table of settings into docs/settings.md, between its two comments.
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { root } from "./run-tool.ts";
import { settingsTable } from "./settings-table.ts";

const page = join(root, "docs/settings.md");
const table = /(?<=<!-- settings -->\n).*(?=\n<!-- \/settings -->)/s;
const text = await readFile(page, "utf8");
if (!table.test(text)) throw new Error(`${page} has no comments <!-- settings --> and <!-- /settings -->`);
await writeFile(
  page,
  text.replace(table, () => settingsTable()),
);
