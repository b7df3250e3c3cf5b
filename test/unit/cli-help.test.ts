import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Command } from "commander";
import { describe, expect, test } from "vitest";
import { COMMANDS } from "../../src/cli/command-list.ts";
import { allCommands, type CommandNode, commandTree } from "../../src/cli/completion/command-tree.ts";
import { EXIT_CODES } from "../../src/cli/exit-codes.ts";
import { firstPart } from "../../src/cli/help.ts";
import type { Host } from "../../src/cli/host.ts";
import { loadProgram } from "../../src/cli/program.ts";
import { SETTINGS } from "../../src/config/settings.ts";
import { runCli } from "../support/cli.ts";
import { checkout } from "../support/program.ts";

const { stdin, stderr } = process;
const host: Host = {
  env: {},
  stdin,
  stdout: Object.create(process.stdout, { write: { value: () => true } }),
  stderr,
  on: () => 0,
  off: () => 0,
};

/** The program with the files of all commands. */
function wholeProgram(): Promise<Command> {
  return loadProgram(host, () => true);
}

/** The leaf commands of the program. */
async function commands(): Promise<readonly CommandNode[]> {
  return allCommands(commandTree(await wholeProgram())).filter((node) => node.commands.length === 0);
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

test("--help-all lists the exit codes, and every command has examples", async () => {
  const { stdout } = await runCli(["--help-all"]);
  for (const [code, meaning] of EXIT_CODES) expect(stdout).toContain(`  ${code}  ${meaning}\n`);
  for (const { path } of await commands()) {
    if (path[0] === "serve") continue;
    for (const flag of ["--help", "--help-all"]) {
      const help = await runCli([...path, flag]);
      expect(help, path.join(" ")).toMatchObject({ code: 0, stderr: "" });
      expect(help.stdout).toMatch(new RegExp(`\nExamples:\n(.*harborforge-agents ${path.join(" ")}.*\n)+`, "m"));
      for (const line of help.stdout.split("\n")) expect(line.length, line).toBeLessThanOrEqual(130);
    }
  }
});

test("--help-all of serve has every setting, with its range, its default and its variable", async () => {
  const { stdout } = await runCli(["serve", "--help-all"]);
  const text = stdout.replaceAll(/\s+/g, " ");
  for (const { flag, allowed, defaultText, env } of Object.values(SETTINGS)) {
    expect(text).toContain(`--${flag} `);
    expect(text).toContain(`: ${allowed} (default: ${defaultText}; env: ${env})`);
  }
});

describe("--help", () => {
  test("fits a screen of 80 columns and 24 rows, for the program and for each command", async () => {
    const all = allCommands(commandTree(await wholeProgram()));
    expect(all.length).toBeGreaterThan(20);
    for (const { path } of all) {
      const { code, stdout } = await runCli([...path, "--help"]);
      expect(code).toBe(0);
      const lines = stdout.trimEnd().split("\n");
      // The last row is for the next prompt.
      expect(lines.length, stdout).toBeLessThan(24);
      for (const line of lines) expect(line.length, line).toBeLessThanOrEqual(80);
      // No text is cut within a clause.
      expect(stdout).not.toContain("…");
    }
  });

  test("of a group lists the summaries of its commands, and loads none of them", async () => {
    const { stdout } = await runCli(["agents", "--help"]);
    const listed = COMMANDS.filter(({ words }) => words.startsWith("agents "));
    for (const { words, summary } of listed) {
      expect(stdout).toMatch(new RegExp(`^  ${words.split(" ")[1]} +${firstPart(summary)}$`, "m"));
    }
  });

  test("of one command is the same with and without the files of the others", async () => {
    const whole = await wholeProgram();
    const fleet = whole.commands.find((command) => command.name() === "fleet");
    expect((await runCli(["fleet", "--help"])).stdout.trimEnd()).toBe(fleet?.helpInformation().trimEnd());
    expect((await runCli(["help", "fleet"])).stdout).toBe((await runCli(["fleet", "--help"])).stdout);
    expect((await runCli(["agents", "help", "list"])).stdout).toBe((await runCli(["agents", "list", "--help"])).stdout);
  });
});
