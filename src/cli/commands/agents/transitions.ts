import type { Command } from "commander";
import { TRANSITION_CAUSES, type TransitionCause } from "../../../../common/contract/enum-names.ts";
import type { Micros } from "../../../../common/contract/time.ts";
import { agoArgument, idArgument, repeatedChoice } from "../../arguments.ts";
import { EXIT_OK } from "../../exit-codes.ts";
import { transitionColumns } from "../../records/agent-columns.ts";
import { printList } from "../../records/output.ts";
import { addPageOptions, type PageFlags, pagesOf } from "../../records/pages.ts";
import { type Shell, serviceCommand } from "../../shell.ts";

interface Flags extends PageFlags {
  readonly after?: bigint;
  readonly oldestFirst?: true;
  readonly cause?: readonly TransitionCause[];
  readonly claw?: string;
  readonly since?: Micros;
  readonly incident?: string;
}

export function define(command: Command, shell: Shell): void {
  addPageOptions(command, 50)
    .argument("[agent-id]", "which agent (default: all agents)")
    .addOption(repeatedChoice("--cause <cause>", "only transitions with this cause; repeatable", TRANSITION_CAUSES))
    .option("--claw <identifier>", "only transitions on, to or from this claw")
    .option("--since <when>", "only from this time on: 90s or 2h ago, or 2026-11-22T22:30:00Z", agoArgument)
    .option("--incident <id>", "only transitions of this incident (see incidents)")
    .option("--after <revision>", "only transitions after this revision", idArgument)
    .option("--oldest-first", "oldest transitions first");
  const examples = [
    "harborforge-agents agents transitions bob-1 --since 2h",
    "harborforge-agents agents transitions --cause lease_expired --claw claw-1",
    "harborforge-agents agents transitions --oldest-first --after 4711 --limit all -o jsonl",
  ];
  serviceCommand<Flags>(shell, command, examples, async ({ caller, calls, out, err }, flags, [agentId]) => {
    const { after: afterRevision = 0n, oldestFirst, cause: causes = [], claw, since, incident } = flags;
    const query = {
      afterRevision,
      newestFirst: oldestFirst !== true,
      causes,
      ...(agentId === undefined ? {} : { agentId }),
      ...(claw === undefined ? {} : { clawIdentifier: claw }),
      ...(since === undefined ? {} : { since }),
      ...(incident === undefined ? {} : { incidentId: incident }),
    };
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
