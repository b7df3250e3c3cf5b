import { readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { expect, test } from "vitest";

const folder = join(import.meta.dirname, "../../proto/harborforge");

/** All proto files of the contract, by their paths below `proto/harborforge`. */
const files = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".proto"));

/** The options that Buf's managed mode would set for the module `buf.build/harborforge/agents`. */
function optionsOf(path: string): readonly string[] {
  const outer = basename(path, ".proto").replace(/(?:^|_)([a-z])/g, (_, letter: string) => letter.toUpperCase());
  return [
    'option csharp_namespace = "Harborforge.Agents.V1";',
    'option go_package = "buf.build/gen/go/harborforge/agents/protocolbuffers/go/harborforge/agents/v1;agentsv1";',
    "option java_multiple_files = true;",
    `option java_outer_classname = "${outer}Proto";`,
    'option java_package = "com.harborforge.agents.v1";',
  ];
}

test("finds the proto files of the contract", () => {
  expect(files.length).toBeGreaterThan(5);
});

test.each(files)("%s has the package options for other languages", (path) => {
  const options = readFileSync(join(folder, path), "utf8").match(/^option .*;$/gm);
  expect(options).toEqual(optionsOf(path));
});
