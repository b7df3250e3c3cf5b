import type { Command } from "commander";
import { idArgument } from "../../arguments.ts";
import { EXIT_OK } from "../../exit-codes.ts";
import { transitionColumns } from "../../records/agent-columns.ts";
import { printList } from "../../records/output.ts";
import { addPageOptions, type PageFlags, pagesOf } from "../../records/pages.ts";
import { type Shell, serviceCommand } from "../../shell.ts";

interface Flags extends PageFlags {
  readonly after?: bigint;
  readonly oldestFirst?: true;
}

export function define(command: Command, shell: Shell): void {
  addPageOptions(command, 50)
    .argument("[agent-id]", "which agent; default: all agents")
    .option("--after <revision>", "only transitions after this revision", idArgument)
    .option("--oldest-first", "oldest transitions first");
  const examples = [
    "harborforge-agents agents transitions bob-1",
    "harborforge-agents agents transitions --oldest-first --after 4711 --limit all -o jsonl",
  ];
  serviceCommand<Flags>(shell, command, examples, async ({ caller, calls, out, err }, flags, [agentId]) => {
    const { after: afterRevision = 0n, oldestFirst } = flags;
    const query = { afterRevision, newestFirst: oldestFirst !== true, ...(agentId === undefined ? {} : { agentId }) };
    const pages = pagesOf(flags, (page) => calls.listTransitions(caller, { ...page, ...query }));
    const look = {
      name: "transitions",
      columns: transitionColumns(Date.now()),
      none: "There are no such transitions.",
    };
    await printList({ out, err }, flags.output, pages, look);
    return EXIT_OK;
  });
}
