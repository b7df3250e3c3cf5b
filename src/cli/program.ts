import { readFileSync } from "node:fs";
import { Command, CommanderError } from "commander";
import { withoutPasswords, withoutUserInfo } from "../../common/logging/redaction.ts";
import { EXIT_CODES, EXIT_OK, EXIT_WRONG_SETTING } from "./exit-codes.ts";
import type { Host } from "./host.ts";
import type { Shell } from "./shell.ts";
import { printable } from "./terminal/printable.ts";

/** Adds one or more commands to the program. */
export type Registration = (shell: Shell) => void;

const WIDEST_HELP = 120;

const HELP = `
Address and credentials: flags first, then the environment (HARBORFORGE_ADDRESS, HARBORFORGE_TOKEN,
HARBORFORGE_TOKEN_FILE, HARBORFORGE_CA, HARBORFORGE_CERT, HARBORFORGE_KEY, HARBORFORGE_PROFILE), then the profile file,
~/.config/harborforge-agents/profiles.json or below $XDG_CONFIG_HOME; with a token it must not be readable by others.

  {"default": "local", "profiles": {"local": {"address": "http://127.0.0.1:50051"},
   "prod": {"address": "https://agents.example.com", "tokenFile": "prod.token", "ca": "ca.pem"}}}

Exit codes:
${EXIT_CODES.map(([code, meaning]) => `  ${code}  ${meaning}\n`).join("")}`;

/**
 * Runs the program.
 *
 * @param args the command line, without the program's own name
 * @returns the exit code
 */
export async function runProgram(
  args: readonly string[],
  host: Host,
  registrations: readonly Registration[],
): Promise<number> {
  let exitCode = EXIT_OK;
  const ends = (code: number): void => {
    exitCode = code;
  };
  const program = createProgram(host);
  program.addHelpText("after", HELP);
  for (const register of registrations) register({ program, host, ends });
  try {
    await program.parseAsync([...args], { from: "user" });
    return exitCode;
  } catch (error) {
    // Commander has printed the error or the help already.
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT_OK : EXIT_WRONG_SETTING;
    throw error;
  }
}

function createProgram({ stdout, stderr }: Host): Command {
  const width = (columns: number | undefined): number => Math.min(columns || 100, WIDEST_HELP);
  // A closed output has no reader, so the error needs no handling.
  for (const stream of [stdout, stderr]) stream.on("error", () => undefined);
  return new Command("harborforge-agents")
    .description("Knows which AI agents are online, what each agent does, and when an exhausted agent recovers.")
    .version(packageVersion())
    .exitOverride()
    .configureOutput({
      writeOut: (text) => void stdout.write(text),
      writeErr: (text) => void stderr.write(text),
      // Always one line, whatever the command line contains.
      outputError: (text, write) =>
        write(`${printable(withoutSecrets(text.trim().replaceAll(/\s*\n\s*/g, " ")))} (Try --help.)\n`),
      getOutHelpWidth: () => width(stdout.columns),
      getErrHelpWidth: () => width(stderr.columns),
      getOutHasColors: () => false,
      getErrHasColors: () => false,
    });
}

/** An error of Commander quotes the command line. An option of another command may be a token, an address a password. */
function withoutSecrets(text: string): string {
  const shown = text
    .replace(/(unknown option '--?[\w-]+)=.*'/s, "$1'")
    .replace(
      /((?:argument|value) ')(.*)(' is invalid)/s,
      (_, before: string, value: string, after: string) => `${before}${withoutUserInfo(value)}${after}`,
    );
  return withoutPasswords(shown);
}

function packageVersion(): string {
  const text = readFileSync(new URL("../../package.json", import.meta.url), "utf8");
  const parsed: unknown = JSON.parse(text);
  const version = typeof parsed === "object" && parsed !== null && "version" in parsed ? parsed.version : undefined;
  return String(version);
}
