import type { Command } from "commander";
import { firstPart } from "../help.ts";

/** The possible completions of a word: fixed choices, file names, or none. */
export type Completions =
  | { readonly kind: "choice"; readonly words: readonly string[] }
  | { readonly kind: "file" | "any" };

export interface OptionNode {
  /** `--output`, and its short form `-o` if it has one. */
  readonly names: readonly string[];
  readonly description: string;
  /** Undefined for an option without a value. */
  readonly value: Completions | undefined;
  readonly valueName: string;
  readonly repeats: boolean;
}

export interface ArgumentNode {
  readonly name: string;
  readonly words: Completions;
}

/** A command with what a shell needs to complete it. */
export interface CommandNode {
  /** The words of the command; empty for the program itself. */
  readonly path: readonly string[];
  readonly description: string;
  readonly options: readonly OptionNode[];
  readonly arguments: readonly ArgumentNode[];
  readonly commands: readonly CommandNode[];
}

export function commandTree(command: Command, path: readonly string[] = []): CommandNode {
  const flag = (names: readonly string[], text: string): OptionNode => {
    return { names, description: text, value: undefined, valueName: "", repeats: false };
  };
  const help = [flag(["--help", "-h"], "show help"), flag(["--help-all"], "show all of the help")];
  return {
    path,
    description: firstPart(command.description()),
    options: [...command.options.filter(({ hidden }) => !hidden).map(optionNode), ...help],
    arguments: command.registeredArguments.map((argument) => ({
      name: argument.name(),
      words: completionsOf(argument.argChoices, argument.name()),
    })),
    commands: command.commands.map((child) => commandTree(child, [...path, child.name()])),
  };
}

/** The command and all its subcommands. */
export function allCommands(node: CommandNode): readonly CommandNode[] {
  return [node, ...node.commands.flatMap(allCommands)];
}

function optionNode(option: Command["options"][number]): OptionNode {
  const { long, short, required, optional, argChoices, description, parseArg } = option;
  const valueName = /[<[]([^>\]]+)[>\]]/.exec(option.flags)?.[1] ?? "";
  return {
    names: [long, short].filter((name) => name !== undefined && name !== null),
    description: firstPart(description),
    value: required || optional ? completionsOf(argChoices, valueName) : undefined,
    valueName,
    // Only options that collect values are repeatable.
    repeats: parseArg !== undefined && parseArg.length > 1,
  };
}

function completionsOf(choices: readonly string[] | undefined, name: string): Completions {
  if (choices !== undefined) return { kind: "choice", words: choices };
  return { kind: name === "path" ? "file" : "any" };
}
