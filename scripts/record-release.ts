// Records what a release promises to the next one, at its release: npm run record-release. Needs DATABASE_URL, a database that this
// checkout has migrated. The checks compare with it from then on.
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import pg from "pg";
import { readSurface } from "../test/support/schema-surface.ts";
import { root, runTool } from "./run-tool.ts";

const { DATABASE_URL } = process.env;
if (DATABASE_URL === undefined) throw new Error("set DATABASE_URL to a database that this checkout has migrated");
const built = await runTool("buf", ["build", "--exclude-source-info", "-o", "released/contract.binpb"]);
if (!built.ok) throw new Error(built.output);
const client = new pg.Client({ connectionString: DATABASE_URL });
await client.connect();
try {
  await writeFile(join(root, "released/schema.json"), `${JSON.stringify(await readSurface(client), null, 2)}\n`);
} finally {
  await client.end();
}
console.log("recorded released/contract.binpb and released/schema.json: commit both");
