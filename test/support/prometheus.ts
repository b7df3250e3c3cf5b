import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";

/** Debian's package `prometheus` has both programs. `HARBORFORGE_TEST_PROMETHEUS` names a folder that has them, before the path. */
export function prometheusProgram(name: "prometheus" | "promtool"): string | undefined {
  const folders = [process.env.HARBORFORGE_TEST_PROMETHEUS ?? "", ...(process.env.PATH ?? "").split(delimiter)];
  const found = folders
    .filter((folder) => folder !== "")
    .map((folder) => join(folder, name))
    .find((file) => existsSync(file));
  if (found === undefined)
    process.stderr.write(`SKIPPED: there is no ${name}. Install Debian's package prometheus to run these tests.\n`);
  return found;
}
