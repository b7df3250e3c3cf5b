import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, test } from "vitest";
import { AgentService } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { TokenService } from "../../gen/harborforge/agents/v1/token_service_pb.ts";
import { UserService } from "../../gen/harborforge/agents/v1/user_service_pb.ts";
import { WakeService } from "../../gen/harborforge/agents/v1/wake_service_pb.ts";

const root = join(import.meta.dirname, "../..");
const contributing = readFileSync(join(root, "CONTRIBUTING.md"), "utf8");

/** The files that a checklist names: the first column of the table below its heading. */
function filesOf(heading: string): string[] {
  const section = contributing.split(/^## /m).find((one) => one.startsWith(`${heading}\n`));
  if (section === undefined) throw new Error(`CONTRIBUTING.md has no section "${heading}"`);
  const rows = section.split("\n").filter((line) => line.startsWith("| `"));
  return rows.flatMap((row) => [...(row.split("|")[1] ?? "").matchAll(/`([^`]+)`/g)].map(([, path = ""]) => path));
}

/** A new kind of message to claws should touch so many files at most. */
const MOST_FILES = 16;
/** Files that `npm run generate` writes: for the contract's code, its fast path and its page. */
const GENERATED_FILES = 3;

describe.each(["Adding an RPC", "Adding a message to claws"])("the checklist %s", (heading) => {
  it("names files that exist", () => {
    const files = filesOf(heading);
    expect(files.length).toBeGreaterThan(5);
    expect(files.filter((path) => !existsSync(join(root, path)))).toEqual([]);
  });
});

test("a message to claws touches at most 16 files", () => {
  expect(filesOf("Adding a message to claws").length + GENERATED_FILES).toBeLessThanOrEqual(MOST_FILES);
});

describe("the checklist of an RPC", () => {
  const everywhere = [
    "src/rpc/pipeline/access-rules.ts",
    "docs/authentication.md",
    "test/e2e/access-table.test.ts",
    "test/e2e/database-errors.slow.test.ts",
  ];
  const methods = [AgentService, UserService, TokenService, WakeService].flatMap((service) => service.methods);

  it("names every file that has to know every method", () => {
    expect(filesOf("Adding an RPC")).toEqual(expect.arrayContaining(everywhere));
  });

  it.each(everywhere)("has each method in %s", (path) => {
    const text = readFileSync(join(root, path), "utf8").toLowerCase();
    expect(methods.map(({ name }) => name).filter((name) => !text.includes(name.toLowerCase()))).toEqual([]);
  });
});
