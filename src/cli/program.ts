import { Command, CommanderError } from "commander";
import { programVersion } from "../../common/program-version.ts";
import { withoutPasswords, withoutUserInfo } from "../../common/secrets/redaction.ts";
import { COMMANDS, GROUPS } from "./command-list.ts";
import { EXIT_CODES, EXIT_OK, EXIT_WRONG_SETTING } from "./exit-codes.ts";
import { addHelp, addNotes, helpWidthOf } from "./help.ts";
import type { Host } from "./host.ts";
import { printable } from "./terminal/printable.ts";

const NOTES = {
  short: "Each command has a --help of its own.",
  full: `Address and credentials: flags first, then the environment (HARBORFORGE_ADDRESS, HARBORFORGE_TOKEN,
HARBORFORGE_TOKEN_FILE, HARBORFORGE_CA, HARBORFORGE_CERT, HARBORFORGE_KEY, HARBORFORGE_PROFILE), then the
profile file, ~/.config/harborforge-agents/profiles.json or below $XDG_CONFIG_HOME. With a token it must not
be readable by others.

  {"default": "local", "profiles": {"local": {"address": "http://127.0.0.1:50051"},
   "prod": {"address": "https://agents.example.com", "tokenFile": "prod.token", "ca": "ca.pem"}}}

Exit codes:
${EXIT_CODES.map(([code, meaning]) => `  ${code}  ${meaning}`).join("\n")}`,
};

/**
 * Runs the program.
 *
 * @param args the command line, without the program's own name
 * @returns the exit code
 */
export async function runProgram(args: readonly string[], host: Host): Promise<number> {
  let exitCode = EXIT_OK;
  const ends = (code: number): void => {
    exitCode = code;
  };
  const program = await loadProgram(host, (words) => isNamed(words, args), ends);
  try {
    await program.parseAsync([...args], { from: "user" });
    return exitCode;
  } catch (error) {
    // Commander has printed the error or the help already.
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT_OK : EXIT_WRONG_SETTING;
    throw error;
  }
}

/**
 * The program with all its commands. The files of the others are not loaded: they have a name and a summary only.
 *
 * @param isLoaded whether to load the command of these words
 * @param ends gets the exit code of a finished command
 */
export async function loadProgram(
  host: Host,
  isLoaded: (words: readonly string[]) => boolean,
  ends: (exitCode: number) => void = () => undefined,
): Promise<Command> {
  const program = createProgram(host);
  const loadAll = () => loadProgram(host, () => true);
  const groups = new Map<string, Command>();
  for (const { words, summary, load } of COMMANDS) {
    const [first = "", second] = words.split(" ");
    let parent = program;
    if (second !== undefined) {
      parent = groups.get(first) ?? addHelp(program.command(first).description(GROUPS[first] ?? ""));
      groups.set(first, parent);
    }
    const command = addHelp(
      parent
        .command(second ?? first)
        .summary(summary)
        .description(summary),
    );
    if (isLoaded(words.split(" "))) (await load()).define(command, { host, ends, loadAll });
  }
  return program;
}

/** Whether a command line runs the command of these words, or asks for its help. */
function isNamed(words: readonly string[], args: readonly string[]): boolean {
  // `agents help list` shows the help of `agents list`.
  const named = args.filter((arg) => !arg.startsWith("-") && arg !== "help");
  return words.every((word, index) => named[index] === word);
}

function createProgram({ stdout, stderr }: Host): Command {
  // A closed output has no reader, so the error needs no handling.
  for (const stream of [stdout, stderr]) stream.on("error", () => undefined);
  const program = new Command("harborforge-agents")
    .description("Knows which AI agents are online, what each does, and when each recovers.")
    .version(programVersion(), "-V, --version", "print the version")
    // An option after the name of a command is the command's own.
    .enablePositionalOptions()
    .exitOverride()
    .configureOutput({
      writeOut: (text) => void stdout.write(text),
      writeErr: (text) => void stderr.write(text),
      // Always one line, whatever the command line contains.
      outputError: (text, write) =>
        write(`${printable(withoutSecrets(text.trim().replaceAll(/\s*\n\s*/g, " ")))} (Try --help.)\n`),
      getOutHelpWidth: () => helpWidthOf(stdout.columns),
      getErrHelpWidth: () => helpWidthOf(stderr.columns),
      getOutHasColors: () => false,
      getErrHasColors: () => false,
    });
  return addNotes(addHelp(program), NOTES);
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
