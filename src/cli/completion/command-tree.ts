import type { Command } from "commander";

/** What a word may be: one of some, a file's name, or anything. */
export type Words = { readonly kind: "choice"; readonly words: readonly string[] } | { readonly kind: "file" | "any" };

export interface OptionNode {
  /** `--output`, and `-o` where there is one. */
  readonly names: readonly string[];
  readonly description: string;
  /** Undefined for an option without a value. */
  readonly value: Words | undefined;
  readonly valueName: string;
  readonly repeats: boolean;
}

export interface ArgumentNode {
  readonly name: string;
  readonly words: Words;
}

/** A command as a shell has to know it to complete it. */
export interface CommandNode {
  /** The words that lead to it; none for the program itself. */
  readonly path: readonly string[];
  readonly description: string;
  readonly options: readonly OptionNode[];
  readonly arguments: readonly ArgumentNode[];
  readonly commands: readonly CommandNode[];
}

export function commandTree(command: Command, path: readonly string[] = []): CommandNode {
  const help = { names: ["--help", "-h"], description: "shows help", value: undefined, valueName: "", repeats: false };
  return {
    path,
    description: firstPart(command.description()),
    options: [...command.options.filter(({ hidden }) => !hidden).map(optionNode), help],
    arguments: command.registeredArguments.map((argument) => ({
      name: argument.name(),
      words: wordsOf(argument.argChoices, argument.name()),
    })),
    commands: command.commands.map((child) => commandTree(child, [...path, child.name()])),
  };
}

/** The command and all below it. */
export function allCommands(node: CommandNode): readonly CommandNode[] {
  return [node, ...node.commands.flatMap(allCommands)];
}

function optionNode(option: Command["options"][number]): OptionNode {
  const { long, short, required, optional, argChoices, description, parseArg } = option;
  const valueName = /[<[]([^>\]]+)[>\]]/.exec(option.flags)?.[1] ?? "";
  return {
    names: [long, short].filter((name) => name !== undefined && name !== null),
    description: firstPart(description),
    value: required || optional ? wordsOf(argChoices, valueName) : undefined,
    valueName,
    // Only what is collected makes sense a second time.
    repeats: parseArg !== undefined && parseArg.length > 1,
  };
}

function wordsOf(choices: readonly string[] | undefined, name: string): Words {
  if (choices !== undefined) return { kind: "choice", words: choices };
  return { kind: name === "path" ? "file" : "any" };
}

/** Descriptions say ranges and defaults, too, which is too much for a list of completions. */
function firstPart(description: string): string {
  return description.split(/[;:(]/)[0]?.trim() ?? "";
}
