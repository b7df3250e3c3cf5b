// Writes the tables of metrics into docs/metrics.md, between its two comments.
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { metricsTables } from "./metrics-tables.ts";
import { root } from "./run-tool.ts";

const page = join(root, "docs/metrics.md");
const tables = /(?<=<!-- metrics -->\n\n).*(?=\n\n<!-- \/metrics -->)/s;
const text = await readFile(page, "utf8");
if (!tables.test(text)) throw new Error(`${page} has no comments <!-- metrics --> and <!-- /metrics -->`);
await writeFile(
  page,
  text.replace(tables, () => metricsTables()),
);
