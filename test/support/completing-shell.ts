import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { expect } from "vitest";
import { spawnSync } from "./owned-process.ts";
import { openTerminal } from "./pseudo-terminal.ts";

export const SHELLS = ["bash", "zsh", "fish"] as const;
export type ShellName = (typeof SHELLS)[number];

export function hasShell(shell: ShellName): boolean {
  return spawnSync(shell, ["-c", "exit 0"]).status === 0;
}

/** Typed text, and what the line is after the Tab key: the only completion of the last word. */
const LINES: readonly (readonly [typed: string, line: string])[] = [
  ["harborforge-agents age", "harborforge-agents agents"],
  ["harborforge-agents agents tr", "harborforge-agents agents transitions"],
  ["harborforge-agents agents list --sta", "harborforge-agents agents list --status"],
  [
    "harborforge-agents agents list --claw x --status exh",
    "harborforge-agents agents list --claw x --status exhausted",
  ],
  ["harborforge-agents agents status bob-1 on", "harborforge-agents agents status bob-1 on_call"],
  [
    "harborforge-agents agents status --address http://h:1 bob-1 exh",
    "harborforge-agents agents status --address http://h:1 bob-1 exhausted",
  ],
  ["harborforge-agents incid", "harborforge-agents incidents"],
  ["harborforge-agents fleet --token-file ./a\\ f", "harborforge-agents fleet --token-file ./a\\ folder/"],
];

/** How each shell starts, without the files of this machine's user. */
const START = {
  bash: ["--norc", "--noprofile", "-i"],
  zsh: ["-i"],
  fish: ["-i"],
} as const;

/**
 * Installs a script as docs/cli.md says, starts the real shell on a terminal, and presses the Tab key.
 *
 * @param home an empty folder
 * @param script prints the script: a command line of the shell
 * @param path folders with the command, for `PATH`
 */
export async function expectCompletion(
  shell: ShellName,
  { home, path }: { readonly home: string; readonly path: string },
): Promise<void> {
  await mkdir(join(home, "a folder"), { recursive: true });
  const env = { PATH: path, HOME: home, ZDOTDIR: home, XDG_CONFIG_HOME: "", NODE_NO_WARNINGS: "1" };
  const run = spawnSync("harborforge-agents", ["completion", shell], { env, encoding: "utf8" });
  expect({ status: run.status, stderr: run.stderr }).toEqual({ status: 0, stderr: "" });
  const write = async (file: string, text: string): Promise<void> => {
    await mkdir(dirname(join(home, file)), { recursive: true });
    await writeFile(join(home, file), text);
  };
  await write(".zfunc/_harborforge-agents", run.stdout);
  await write(".zshrc", "PS1='> '; fpath=(~/.zfunc $fpath); autoload -U compinit; compinit -D -u\n");
  await write(".config/fish/completions/harborforge-agents.fish", run.stdout);
  await write(".config/fish/config.fish", "set -g fish_greeting; function fish_prompt; echo '> '; end\n");
  await using terminal = openTerminal(shell, START[shell], { columns: 120, rows: 40, env });
  if (shell === "bash") {
    terminal.type("PS1='> '; source <(harborforge-agents completion bash); cd; clear\r");
  } else terminal.type("cd; clear\r");
  await terminal.shows((lines) => expect(lines.at(-1)?.trim()).toBe(">"));
  for (const [typed, line] of LINES) {
    terminal.type(typed);
    await terminal.shows((lines) => expect(lines.at(-1)).toContain(typed));
    terminal.type("\t");
    await terminal.shows((lines) => expect(lines.join("\n")).toContain(line));
    terminal.type("\u0015");
    await terminal.shows((lines) => expect(lines.at(-1)?.trim()).toBe(">"));
  }
}
