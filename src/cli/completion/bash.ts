import { allCommands, type CommandNode, type Completions } from "./command-tree.ts";

/** A completion script for bash 3.2 and later, with all commands, options and values. */
export function bashScript(program: string, root: CommandNode): string {
  const commands = allCommands(root);
  const withValue = new Set(
    commands.flatMap(({ options }) => options.flatMap(({ names, value }) => (value === undefined ? [] : names))),
  );
  const name = `_${program.replaceAll("-", "_")}`;
  return `# bash completion for ${program}
# Put it into a completion folder of bash, or run: source <(${program} completion bash)
${name}() {
  local current previous="" path="" word="" words="" files="" i place=0 joined=""
  # bash splits words at = and at the colons of addresses: put the latter together again.
  local -a line=()
  for ((i = 0; i <= COMP_CWORD; i++)); do
    word="\${COMP_WORDS[i]}"
    if [ "\${#line[@]}" -gt 0 ] && { [ "$word" = ":" ] || [ -n "$joined" ]; }; then
      line[\${#line[@]}-1]="\${line[\${#line[@]}-1]}$word"
    else line+=("$word"); fi
    joined=""
    [ "$word" = ":" ] && joined=1
  done
  local last=$((\${#line[@]} - 1))
  current="\${line[last]}"
  [ "$last" -gt 0 ] && previous="\${line[last-1]}"
  if [ "$current" = "=" ]; then current=""
  elif [ "$previous" = "=" ]; then previous="\${line[last-2]}"; fi
  i=1
  while [ "$i" -lt "$last" ]; do
    word="\${line[i]}"
    case "$word" in
      ${[...withValue].join("|")})
        i=$((i + 1))
        [ "\${line[i]}" = "=" ] && i=$((i + 1)) ;;
      -*|=) ;;
      *)
        case "$path $word" in
          ${commands
            .slice(1)
            .map(({ path }) => `" ${path.join(" ")}"`)
            .join("|")}) path="$path $word" ;;
          *) place=$((place + 1)) ;;
        esac ;;
    esac
    i=$((i + 1))
  done
  case "$path $previous" in
${commands.flatMap(valueCases).join("\n")}
    *)
      case "$path" in
${commands.map(commandCase).join("\n")}
      esac ;;
  esac
  COMPREPLY=()
  # Readline completes names of files better, with spaces and folders, where a function can ask it to.
  if [ -n "$files" ]; then compopt -o default 2>/dev/null || COMPREPLY=($(compgen -f -- "$current"))
  elif [ -n "$words" ]; then COMPREPLY=($(compgen -W "$words" -- "$current")); fi
}
complete -F ${name} ${program}
`;
}

function valueCases({ path, options }: CommandNode): string[] {
  return options.flatMap(({ names, value }) => {
    if (value === undefined) return [];
    const patterns = names.map((name) => `"${pathKey(path)} ${name}"`).join("|");
    return [`    ${patterns}) ${assignment(value)};;`];
  });
}

function commandCase(node: CommandNode): string {
  const { path, commands, options } = node;
  const names = options.flatMap((option) => option.names).join(" ");
  const below = commands.map((command) => command.path.at(-1)).join(" ");
  const places = node.arguments.map(({ words }, index) => `${index}) ${assignment(words)};; `).join("");
  const rest = commands.length > 0 ? `words="${below}"` : `case "$place" in ${places}esac`;
  return `        "${pathKey(path)}") case "$current" in -*) words="${names}" ;; *) ${rest} ;; esac ;;`;
}

function assignment(words: Completions): string {
  if (words.kind === "choice") return `words="${words.words.join(" ")}" `;
  return words.kind === "file" ? "files=1 " : "";
}

function pathKey(path: readonly string[]): string {
  return path.map((word) => ` ${word}`).join("");
}
