import { allCommands, type CommandNode, type Completions, type OptionNode } from "./command-tree.ts";

/** A completion script for zsh, with a function for each command. It works with `compinit`, or sourced after it. */
export function zshScript(program: string, root: CommandNode): string {
  const functions = allCommands(root).map((node) => functionOf(program, node));
  const name = functionName(program, root.path);
  return `#compdef ${program}
# Put it into a folder of $fpath as _${program}, or run after compinit: source <(${program} completion zsh)
${functions.join("\n")}
if [ "$funcstack[1]" = "_${program}" ]; then
  ${name} "$@"
else
  compdef ${name} ${program}
fi
`;
}

function functionOf(program: string, node: CommandNode): string {
  const options = node.options.map(optionSpec);
  if (node.commands.length === 0) {
    const places = node.arguments.map(({ name, words }, index) =>
      quoted(`${index + 1}:${plain(name)}:${action(words)}`),
    );
    return `${functionName(program, node.path)}() {
  _arguments -s ${[...options, ...places].join(" \\\n    ")}
}
`;
  }
  const below = node.commands.map(
    ({ path, description }) => `    ${quoted(`${path.at(-1)}:${description.replaceAll(":", " ")}`)}`,
  );
  const cases = node.commands.map(({ path }) => `        ${path.at(-1)}) ${functionName(program, path)} ;;`);
  return `${functionName(program, node.path)}() {
  local curcontext="$curcontext" state line
  local -a commands
  typeset -A opt_args
  commands=(
${below.join("\n")}
  )
  _arguments -C ${[...options, "'1: :->command'", "'*:: :->rest'"].join(" \\\n    ")}
  case "$state" in
    command) _describe -t commands command commands ;;
    rest)
      case "$line[1]" in
${cases.join("\n")}
      esac ;;
  esac
}
`;
}

function optionSpec({ names, description, value, valueName, repeats }: OptionNode): string {
  const text = `[${plain(description)}]`;
  const rest = value === undefined ? text : `${text}:${plain(valueName)}:${action(value)}`;
  if (repeats) return names.map((name) => quoted(`*${name}${rest}`)).join(" ");
  return names.map((name) => quoted(`(${names.join(" ")})${name}${rest}`)).join(" ");
}

function action(words: Completions): string {
  if (words.kind === "choice") return `(${words.words.join(" ")})`;
  return words.kind === "file" ? "_files" : " ";
}

/** Without the special characters of `_arguments`. */
function plain(text: string): string {
  return text.replaceAll(/[[\]:\\]/g, " ");
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function functionName(program: string, path: readonly string[]): string {
  return `__${[program.replaceAll("-", "_"), ...path].join("__")}`;
}
