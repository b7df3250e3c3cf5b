import type { Command } from "commander";
import { EXIT_OK } from "../../exit-codes.ts";
import { agentColumns } from "../../records/agent-columns.ts";
import { printList } from "../../records/output.ts";
import { addPageOptions, type PageFlags, pagesOf } from "../../records/pages.ts";
import { type Shell, serviceCommand } from "../../shell.ts";
import { addSelectionOptions, filterOf, type SelectionFlags } from "../selection.ts";

export function define(command: Command, shell: Shell): void {
  addPageOptions(command, Number.POSITIVE_INFINITY);
  addSelectionOptions(command);
  const examples = [
    "harborforge-agents agents list --claw claw-1 --status busy --status on_call",
    "harborforge-agents agents list -o jsonl | jq -r .agentId",
  ];
  serviceCommand<PageFlags & SelectionFlags>(shell, command, examples, async ({ caller, calls, out, err }, flags) => {
    const filter = filterOf(flags);
    const pages = pagesOf(flags, (page) => calls.listAgents(caller, { ...page, filter }));
    const look = { name: "agents", columns: agentColumns(Date.now()), none: "There are no such agents." };
    await printList({ out, err }, flags.output, pages, look);
    return EXIT_OK;
  });
}
