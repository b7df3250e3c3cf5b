import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Command } from "commander";
import { describe, expect, test } from "vitest";
import { registerMigrate, registerServe, registerTokens } from "../../src/cli/commands/server.ts";
import { allCommands, type CommandNode, commandTree } from "../../src/cli/completion/command-tree.ts";
import { EXIT_CODES } from "../../src/cli/exit-codes.ts";
import { runProgram } from "../../src/cli/program.ts";
import { SERVICE_COMMANDS } from "../../src/cli/service-commands.ts";
import { runCli } from "../support/cli.ts";
import { checkout } from "../support/program.ts";

/** The leaf commands of the program. */
async function commands(): Promise<readonly CommandNode[]> {
  let tree: CommandNode | undefined;
  const look = ({ program }: { readonly program: Command }): void => {
    tree = commandTree(program);
  };
  const registrations = [
    registerServe(process),
    registerMigrate(process),
    registerTokens(process),
    ...SERVICE_COMMANDS,
    look,
  ];
  const { stdin, stdout, stderr } = process;
  const silent = Object.create(stdout, { write: { value: () => true } });
  await runProgram(["--version"], { env: {}, stdin, stdout: silent, stderr, on: () => 0, off: () => 0 }, registrations);
  return tree === undefined ? [] : allCommands(tree).filter((node) => node.commands.length === 0);
}

/** The rows of the table between two marks of a document, by their cells. */
async function table(mark: string): Promise<string[][]> {
  const text = await readFile(join(checkout, "docs/cli.md"), "utf8");
  const part = text.split(`<!-- ${mark} -->`)[1]?.split(`<!-- /${mark} -->`)[0] ?? "";
  const rows = part.split("\n").filter((line) => line.startsWith("| "));
  return rows.slice(2).map((row) =>
    row
      .split("|")
      .slice(1, -1)
      .map((cell) => cell.trim()),
  );
}

describe("docs/cli.md", () => {
  test("has every command", async () => {
    const documented = (await table("commands")).map(([command = ""]) => command.replaceAll("`", ""));
    const there = (await commands()).map(({ path }) => path.join(" "));
    expect(there.length).toBeGreaterThan(15);
    expect(new Set(documented)).toEqual(new Set(there));
  });

  test("has every exit code", async () => {
    expect(await table("exit codes")).toEqual(EXIT_CODES.map(([code, meaning]) => [String(code), meaning]));
  });
});

test("--help lists the exit codes, and every command has examples", async () => {
  const { stdout } = await runCli(["--help"]);
  for (const [code, meaning] of EXIT_CODES) expect(stdout).toContain(`  ${code}  ${meaning}\n`);
  for (const { path } of await commands()) {
    if (["serve", "migrate", "tokens"].includes(path[0] ?? "")) continue;
    const help = await runCli([...path, "--help"]);
    expect(help, path.join(" ")).toMatchObject({ code: 0, stderr: "" });
    expect(help.stdout).toMatch(new RegExp(`\nExamples:\n(.*harborforge-agents ${path.join(" ")}.*\n)+`, "m"));
    for (const line of help.stdout.split("\n")) expect(line.length, line).toBeLessThanOrEqual(130);
  }
});
