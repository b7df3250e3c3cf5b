import type { Command } from "commander";
import { EXIT_OK } from "../exit-codes.ts";
import { incidentColumns } from "../records/incident-columns.ts";
import { printList } from "../records/output.ts";
import { addPageOptions, type PageFlags, pagesOf } from "../records/pages.ts";
import { type Shell, serviceCommand } from "../shell.ts";

interface Flags extends PageFlags {
  readonly claw?: string;
}

export function define(command: Command, shell: Shell): void {
  command.description("list incidents, newest first: claws whose agents went offline together because all fell silent");
  addPageOptions(command, 50).option("--claw <identifier>", "only incidents of this claw");
  const examples = [
    "harborforge-agents incidents --claw claw-1",
    "harborforge-agents incidents --limit all -o jsonl | jq 'select(.endedAt == null)'",
  ];
  serviceCommand<Flags>(shell, command, examples, async ({ caller, calls, out, err }, flags) => {
    const query = flags.claw === undefined ? {} : { clawIdentifier: flags.claw };
    const pages = pagesOf(flags, (page) => calls.listIncidents(caller, { ...page, ...query }));
    const look = { name: "incidents", columns: incidentColumns(Date.now()), none: "There are no such incidents." };
    await printList({ out, err }, flags.output, pages, look);
    return EXIT_OK;
  });
}
