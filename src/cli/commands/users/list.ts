import type { Command } from "commander";
import { EXIT_OK } from "../../exit-codes.ts";
import { printList } from "../../records/output.ts";
import { addPageOptions, type PageFlags, pagesOf } from "../../records/pages.ts";
import { userColumns } from "../../records/user-columns.ts";
import { type Shell, serviceCommand } from "../../shell.ts";

export function define(command: Command, shell: Shell): void {
  addPageOptions(command, Number.POSITIVE_INFINITY);
  const examples = [
    "harborforge-agents users list --limit 20",
    "harborforge-agents users list -o jsonl | jq -r .username",
  ];
  serviceCommand<PageFlags>(shell, command, examples, async ({ caller, calls, out, err }, flags) => {
    const pages = pagesOf(flags, (page) => calls.listUsers(caller, page));
    const look = { name: "users", columns: userColumns(Date.now()), none: "There are no users." };
    await printList({ out, err }, flags.output, pages, look);
    return EXIT_OK;
  });
}
