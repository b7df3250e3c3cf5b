import { type Argument, type Command, Help, Option } from "commander";
import { clip } from "./terminal/text-width.ts";

/** Help is as wide as the terminal, up to this many columns. */
const WIDEST = 100;
const NARROWEST = 60;
/** Without a terminal. */
const DEFAULT_WIDTH = 80;
const HELP_TERM = "-h, --help";
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
    .helpOption(HELP_TERM, "show the help of the most important options")
    .addOption(new Option("--help-all", "show all options, with their ranges and defaults").hideHelp())
    .on("option:help-all", () => {
      inFull.add(command);
      command.help();
    });
  return command.configureHelp({
    // Arguments and options of commands whose files are not loaded are unknown.
    subcommandTerm: (listed) => listed.name(),
    commandDescription: (of) => sentence(of.description()),
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
  const options = helper.visibleOptions(command).filter((option) => !detailed.has(option) && option.long !== "--help");
  const rows: readonly (readonly [term: string, text: string, choices?: readonly string[] | undefined])[] = [
    ...helper.visibleCommands(command).map((one) => [one.name(), helper.subcommandDescription(one)] as const),
    ...command.registeredArguments.map((one) => [argumentTerm(one), one.description, one.argChoices] as const),
    ...options.map((one) => [helper.optionTerm(one), one.description, one.argChoices] as const),
  ];
  const termWidth = Math.max(HELP_TERM.length, ...rows.map(([term]) => term.length));
  const line = (term: string, text: string): string => `  ${term.padEnd(termWidth)}  ${text}`.trimEnd();
  const room = width - termWidth - 4;
  const notes = notesOf.get(command)?.short ?? "";
  const examples = (examplesOf.get(command) ?? []).filter((example) => example.length + 2 <= width);
  return [
    `Usage: ${helper.commandUsage(command)}`,
    "",
    helper.boxWrap(sentence(command.description()), width),
    "",
    ...rows.map(([term, text, choices]) => line(term, inOneLine(text, choices, room))),
    line(HELP_TERM, "show this help, or all of it with --help-all"),
    ...(notes === "" ? [] : ["", notes]),
    exampleLines(examples.slice(0, FEW_EXAMPLES)),
  ].join("\n");
}

function argumentTerm(argument: Argument): string {
  return argument.required ? `<${argument.name()}>` : `[${argument.name()}]`;
}

/** The beginning of a description, with the choices of the value if there is room for them. */
function inOneLine(description: string, choices: readonly string[] | undefined, room: number): string {
  const text = firstPart(description);
  const withChoices = choices === undefined ? text : `${text}: ${choices.join(", ")}`;
  if (withChoices.length <= room) return withChoices;
  if (text.length <= room) return text;
  const clause = text.slice(0, room + 1).lastIndexOf(", ");
  return clause > 0 ? text.slice(0, clause) : clip(text, room);
}

function exampleLines(examples: readonly string[]): string {
  return examples.length === 0 ? "" : `\nExamples:\n${examples.map((line) => `  ${line}\n`).join("")}`;
}

/** A description up to its first range, default or remark. */
export function firstPart(description: string): string {
  return description.split(/;|: | \(/)[0]?.trim() ?? "";
}

function sentence(text: string): string {
  const [first = "", ...rest] = text;
  return `${first.toUpperCase()}${rest.join("")}${/[.!?]$/.test(text) ? "" : "."}`;
}
