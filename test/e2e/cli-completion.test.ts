import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { runCli } from "../support/cli.ts";
import { execFileSync, spawnSync, temporaryFolder } from "../support/owned-process.ts";
import { openTerminal } from "../support/pseudo-terminal.ts";

const SHELLS = ["bash", "zsh", "fish"] as const;
type Shell = (typeof SHELLS)[number];

let folder = "";

beforeAll(async () => {
  folder = await temporaryFolder("completion");
  for (const shell of SHELLS) {
    const { code, stdout, stderr } = await runCli(["completion", shell]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    await writeFile(join(folder, shell), stdout);
  }
});

afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

function isThere(shell: Shell): boolean {
  return spawnSync(shell, ["-c", "exit 0"]).status === 0;
}

/** The completions of a word, by the last of the words so far. */
const EXPECTED: readonly (readonly [words: string, completions: readonly string[]])[] = [
  ["harborforge-agents age", ["agents"]],
  ["harborforge-agents agents tr", ["transitions"]],
  ["harborforge-agents agents status bob-1 ex", ["exhausted"]],
  ["harborforge-agents agents list --claw x --status ", ["idle", "on_call", "busy", "exhausted", "offline"]],
  ["harborforge-agents fleet -o j", ["json", "jsonl"]],
  ["harborforge-agents agents status --address http://127.0.0.1:50051 bob-1 ex", ["exhausted"]],
  ["harborforge-agents agents status bob-1 idle --exp", ["--expected-revision"]],
  ["harborforge-agents completion z", ["zsh"]],
  ["harborforge-agents users get nobody-knows-", []],
];

describe.each(SHELLS)("the script for %s", (shell) => {
  test("is well-formed", ({ skip }) => {
    if (!isThere(shell)) skip(`there is no ${shell} here`);
    const { status, stderr } = spawnSync(shell, ["-n", join(folder, shell)], { encoding: "utf8" });
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  });
});

test("bash completes commands, options and values", ({ skip }) => {
  if (!isThere("bash")) skip("there is no bash here");
  const run = ([words]: (typeof EXPECTED)[number]): string => {
    const quoted = words.split(" ").map((word) => `'${word}'`);
    return `COMP_WORDS=(${quoted.join(" ")}); COMP_CWORD=${quoted.length - 1}; COMPREPLY=(); _harborforge_agents; echo "\${COMPREPLY[*]}"`;
  };
  const script = `source ${join(folder, "bash")}\n${EXPECTED.map(run).join("\n")}`;
  const lines = execFileSync("bash", ["--norc", "-c", script], { encoding: "utf8" }).split("\n");
  expect(lines.slice(0, -1)).toEqual(EXPECTED.map(([, completions]) => completions.join(" ")));
});

test("fish completes commands, options and values", ({ skip }) => {
  if (!isThere("fish")) skip("there is no fish here");
  const run = ([words]: (typeof EXPECTED)[number]): string =>
    `echo (complete -C '${words}' | string split -f1 \\t | sort | string join ' ')`;
  const script = `source ${join(folder, "fish")}\n${EXPECTED.map(run).join("\n")}`;
  const lines = execFileSync("fish", ["--no-config", "-c", script], {
    encoding: "utf8",
    env: { ...process.env, HOME: folder },
  });
  expect(lines.split("\n").slice(0, -1)).toEqual(EXPECTED.map(([, completions]) => [...completions].sort().join(" ")));
});

test("zsh completes commands, options and values at its prompt", async ({ skip }) => {
  if (!isThere("zsh")) skip("there is no zsh here");
  await using terminal = openTerminal("zsh", ["-f", "-i"], {
    columns: 120,
    rows: 40,
    env: { HOME: folder, ZDOTDIR: folder },
  });
  terminal.type(
    "PS1='> '; autoload -U compinit; compinit -D -u; source ./zsh; clear\r".replace("./zsh", join(folder, "zsh")),
  );
  await terminal.shows((lines) => expect(lines).toEqual([">"]));
  for (const [words, [completion, ...others]] of EXPECTED) {
    if (completion === undefined || others.length > 0) continue;
    terminal.type(`${words}\t`);
    const whole = words.slice(0, words.lastIndexOf(" ") + 1) + completion;
    await terminal.shows((lines) => expect(lines.at(-1)).toContain(whole));
    terminal.type("\u0015");
    await terminal.shows((lines) => expect(lines.at(-1)).toBe(">"));
  }
  // It lists all of several candidates.
  terminal.type("harborforge-agents agents list --claw x --status \t");
  await terminal.shows(/idle/);
  for (const status of ["on_call", "busy", "exhausted", "offline"]) await terminal.shows(status);
}, 60_000);

test("needs no service and no profile, as --help does not", async () => {
  const env = { HARBORFORGE_ADDRESS: "nowhere at all", HARBORFORGE_PROFILE: "none" };
  expect((await runCli(["completion", "bash"], env)).code).toBe(0);
  const help = await runCli(["agents", "list", "--help"], env);
  expect(help).toMatchObject({ code: 0, stderr: "" });
  expect(help.stdout).toContain("Examples:\n  harborforge-agents agents list");
  expect(await runCli(["completion", "tcsh"], env)).toMatchObject({ code: 2, stdout: "" });
});
