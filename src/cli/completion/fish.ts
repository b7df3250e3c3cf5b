import { allCommands, type CommandNode, type Completions } from "./command-tree.ts";

/** A completion script for fish 3.0 and later. */
export function fishScript(program: string, root: CommandNode): string {
  const commands = allCommands(root);
  const name = `__${program.replaceAll("-", "_")}_at`;
  const withValue = new Set(
    commands.flatMap(({ options }) => options.flatMap(({ names, value }) => (value === undefined ? [] : names))),
  );
  const paths = commands.slice(1).map(({ path }) => quoted(path.join(" ")));
  return `# fish completion for ${program}
# Put it into ~/.config/fish/completions/${program}.fish, or run: ${program} completion fish | source
function ${name} --description 'Whether the command line has this command, and this many arguments'
  set -l wanted $argv[1]
  set -l places $argv[2]
  set -l path
  set -l place 0
  set -l skip 0
  for word in (commandline -opc)[2..-1]
    if test $skip -eq 1
      set skip 0
      continue
    end
    switch $word
      case ${[...withValue].join(" ")}
        set skip 1
      case '-*'
      case '*'
        set -l longer (string trim -- "$path $word")
        if contains -- $longer ${paths.join(" ")}
          set path $longer
        else
          set place (math $place + 1)
        end
    end
  end
  test "$path" = "$wanted"; and begin; test -z "$places"; or test "$place" = "$places"; end
end
complete -c ${program} -f
${commands.flatMap((node) => linesOf(program, name, node)).join("\n")}
`;
}

function linesOf(program: string, at: string, { path, options, arguments: places, commands }: CommandNode): string[] {
  const here = quoted(path.join(" "));
  const line = (condition: string, rest: string): string =>
    `complete -c ${program} -n ${quoted(`${at} ${condition}`)} ${rest}`;
  return [
    ...commands.map((command) => line(`${here} 0`, `-a ${command.path.at(-1)} -d ${quoted(command.description)}`)),
    ...places.flatMap(({ words }, index) =>
      words.kind === "any" ? [] : [line(`${here} ${index}`, valueFlags(words).replace("-x ", ""))],
    ),
    ...options.map(({ names, description, value }) => {
      const flags = names.map((name) => (name.startsWith("--") ? `-l ${name.slice(2)}` : `-s ${name.slice(1)}`));
      const taken = value === undefined ? "" : ` ${valueFlags(value)}`;
      return line(here, `${flags.join(" ")}${taken} -d ${quoted(description)}`);
    }),
  ];
}

function valueFlags(words: Completions): string {
  if (words.kind === "choice") return `-x -a ${quoted(words.words.join(" "))}`;
  return words.kind === "file" ? "-r -F" : "-x";
}

function quoted(text: string): string {
  return `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
}
