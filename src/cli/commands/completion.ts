import { Argument, type Command } from "commander";
import { choiceArgument } from "../arguments.ts";
import { bashScript } from "../completion/bash.ts";
import { commandTree } from "../completion/command-tree.ts";
import { fishScript } from "../completion/fish.ts";
import { zshScript } from "../completion/zsh.ts";
import { EXIT_OK } from "../exit-codes.ts";
import { addExamples } from "../help.ts";
import type { Shell } from "../shell.ts";
import { Printer } from "../terminal/printer.ts";

const SHELLS = ["bash", "zsh", "fish"] as const;
const SCRIPTS = { bash: bashScript, zsh: zshScript, fish: fishScript } as const;

export function define(command: Command, { host, ends, loadAll }: Shell): void {
  command
    .description("print the completion script for a shell; needs no service")
    .addArgument(new Argument("<shell>", "which shell").choices(SHELLS));
  addExamples(command, [
    "source <(harborforge-agents completion bash)",
    "harborforge-agents completion zsh > ~/.zfunc/_harborforge-agents",
    "harborforge-agents completion fish > ~/.config/fish/completions/harborforge-agents.fish",
  ]);
  command.action(async (text: string) => {
    const script = SCRIPTS[choiceArgument(SHELLS)(text)];
    const program = await loadAll();
    new Printer(host.stdout, host.env).put(script(program.name(), commandTree(program)));
    ends(EXIT_OK);
  });
}
