import { type Command, Help, Option } from "commander";

/** Help is as wide as the terminal, up to this many columns. */
const WIDEST = 100;
const NARROWEST = 60;
/** Without a terminal. */
const DEFAULT_WIDTH = 80;
/** Examples of `--help`. `--help-all` shows all. */
const FEW_EXAMPLES = 2;

/** The commands for which `--help-all` was given. */
const inFull = new WeakSet<Command>();
/** The options that only `--help-all` shows. */
const detailed = new WeakSet<Option>();
const examplesOf = new WeakMap<Command, readonly string[]>();
const notesOf = new WeakMap<Command, { readonly short: string; readonly full: string }>();

/** The width of help on a terminal with this many columns; undefined: there is no terminal. */
export function helpWidthOf(columns: number | undefined): number {
  return Math.max(NARROWEST, Math.min(columns || DEFAULT_WIDTH, WIDEST));
}

/**
 * Gives a command two forms of help. `--help` fits a screen of 80 columns and 24 rows: one line for each option, with the
 * first part of its description. `--help-all` has all options, with ranges and defaults, and all examples.
 */
export function addHelp(command: Command): Command {
  command
    .helpOption("-h, --help", "show help; --help-all shows everything")
    .addOption(new Option("--help-all", "show all options, with their ranges and defaults").hideHelp())
    .on("option:help-all", () => {
      inFull.add(command);
      command.help();
    });
  return command.configureHelp({
    // Arguments and options of commands whose files are not loaded are unknown.
    subcommandTerm: (listed) => listed.name(),
    formatHelp: (of, helper) => (inFull.has(of) ? fullHelp(of, helper) : shortHelp(of, helper)),
  });
}

/** Shows an option with `--help-all` only, such as one that few need. */
export function inDetail(option: Option): Option {
  detailed.add(option);
  return option;
}

/** Adds examples to the help. They must work with the defaults. */
export function addExamples(command: Command, examples: readonly string[]): Command {
  examplesOf.set(command, examples);
  return command;
}

/** Adds a text below the options: one line for `--help`, any number for `--help-all`. */
export function addNotes(command: Command, notes: { readonly short: string; readonly full: string }): Command {
  notesOf.set(command, notes);
  return command;
}

function fullHelp(command: Command, helper: Help): string {
  const text = Help.prototype.formatHelp.call(helper, command, helper);
  const notes = notesOf.get(command)?.full ?? "";
  return `${text}${notes === "" ? "" : `\n${notes}\n`}${exampleLines(examplesOf.get(command) ?? [])}`;
}

function shortHelp(command: Command, helper: Help): string {
  const width = helper.helpWidth ?? DEFAULT_WIDTH;
  const options = helper.visibleOptions(command).filter((option) => !detailed.has(option));
  const items = [
    ...helper.visibleArguments(command).map((one) => [helper.argumentTerm(one), one.description] as const),
    ...options.map((one) => [helper.optionTerm(one), one.description] as const),
  ];
  const commands = helper
    .visibleCommands(command)
    .map((one) => [helper.subcommandTerm(one), helper.subcommandDescription(one)] as const);
  const termWidth = Math.max(0, ...[...items, ...commands].map(([term]) => term.length));
  const line = ([term, text]: readonly [string, string]): string =>
    `  ${term.padEnd(termWidth)}  ${firstPart(text)}`.trimEnd();
  const notes = notesOf.get(command)?.short ?? "";
  const examples = (examplesOf.get(command) ?? []).filter((example) => example.length + 2 <= width);
  return [
    `Usage: ${helper.commandUsage(command)}`,
    "",
    ...(commands.length > 0 && items.length > 2 ? [] : [helper.boxWrap(sentence(command.description()), width), ""]),
    ...commands.map(line),
    ...(commands.length > 0 ? [""] : []),
    ...items.map(line),
    ...(notes === "" ? [] : ["", notes]),
    exampleLines(examples.slice(0, FEW_EXAMPLES)),
  ].join("\n");
}

function exampleLines(examples: readonly string[]): string {
  return examples.length === 0 ? "" : `\nExamples:\n${examples.map((line) => `  ${line}\n`).join("")}`;
}

/** A description up to its first range, default or remark. */
export function firstPart(description: string): string {
  return description.split(/[;:(]/)[0]?.trim() ?? "";
}

function sentence(text: string): string {
  const [first = "", ...rest] = text;
  return `${first.toUpperCase()}${rest.join("")}${/[.!?]$/.test(text) ? "" : "."}`;
}
