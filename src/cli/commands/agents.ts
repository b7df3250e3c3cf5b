import type { Command } from "commander";
import { idArgument } from "../arguments.ts";
import { CommandFailure } from "../call-failure.ts";
import { createAgent, deleteAgent, getAgent, listAgents, listTransitions, moveAgent } from "../calls/service-calls.ts";
import { EXIT_OK, EXIT_WRONG_SETTING } from "../exit-codes.ts";
import { agentColumns, agentFacts, transitionColumns } from "../records/agent-columns.ts";
import { jsonText, type OutputFormat, printList, printOne } from "../records/output.ts";
import { addPageOptions, type PageFlags, pagesOf } from "../records/pages.ts";
import type { AgentRecord } from "../records/records.ts";
import { type Shell, serviceCommand } from "../shell.ts";
import { printable } from "../terminal/printable.ts";
import type { Printer } from "../terminal/printer.ts";
import { registerEnrol } from "./agents-enrol.ts";
import { addSelectionOptions, filterOf, type SelectionFlags } from "./selection.ts";
import { registerStatus } from "./status.ts";
import { registerWatch } from "./watch.ts";

export function registerAgents(shell: Shell): void {
  const agents = shell.program.command("agents").description("create, read, move, watch and delete agents");
  registerCreate(shell, agents);
  registerList(shell, agents);
  registerGet(shell, agents);
  registerMove(shell, agents);
  registerStatus(shell, agents);
  registerDelete(shell, agents);
  registerTransitions(shell, agents);
  registerWatch(shell, agents);
  registerEnrol(shell, agents);
}

function registerCreate(shell: Shell, agents: Command): void {
  interface Flags {
    readonly user: bigint;
    readonly claw: string;
  }
  const command = agents
    .command("create")
    .description("create an agent for a user who has none")
    .argument("<agent-id>", "OpenClaw's $AGENT_ID: 1 to 128 characters, unique")
    .requiredOption("--user <id>", "the user's id", idArgument)
    .requiredOption("--claw <identifier>", "the claw that hosts it");
  const examples = ["harborforge-agents agents create bob-1 --user 17 --claw claw-1"];
  serviceCommand<Flags>(shell, command, examples, async ({ caller, out }, { user, claw, output }, [agentId = ""]) => {
    await printAgent(out, output, await createAgent(caller, { userId: user, agentId, clawIdentifier: claw }));
    return EXIT_OK;
  });
}

function registerList(shell: Shell, agents: Command): void {
  const command = addPageOptions(agents.command("list").description("list agents"), Number.POSITIVE_INFINITY);
  const examples = [
    "harborforge-agents agents list --claw claw-1 --status busy --status on_call",
    "harborforge-agents agents list -o jsonl | jq -r .agentId",
  ];
  addSelectionOptions(command);
  serviceCommand<PageFlags & SelectionFlags>(shell, command, examples, async ({ caller, out, err }, flags) => {
    const filter = filterOf(flags);
    const pages = pagesOf(flags, (page) => listAgents(caller, { ...page, filter }));
    const look = { name: "agents", columns: agentColumns(Date.now()), none: "There are no such agents." };
    await printList({ out, err }, flags.output, pages, look);
    return EXIT_OK;
  });
}

function registerGet(shell: Shell, agents: Command): void {
  interface Flags {
    readonly user?: bigint;
  }
  const command = agents
    .command("get")
    .description("show one agent")
    .argument("[agent-id]", "which agent")
    .option("--user <id>", "the agent of the user with this id, instead of <agent-id>", idArgument);
  const examples = ["harborforge-agents agents get bob-1", "harborforge-agents agents get --user 17 -o json"];
  serviceCommand<Flags>(shell, command, examples, async ({ caller, out }, { user, output }, [agentId]) => {
    if ((agentId === undefined) === (user === undefined)) {
      throw new CommandFailure("Name the agent either by its id or with --user.", EXIT_WRONG_SETTING);
    }
    const key = user === undefined ? { agentId: agentId ?? "" } : { userId: user };
    await printAgent(out, output, await getAgent(caller, key));
    return EXIT_OK;
  });
}

function registerMove(shell: Shell, agents: Command): void {
  const command = agents
    .command("move")
    .description("move an agent to another claw; ends its session, keeps its status")
    .argument("<agent-id>", "which agent")
    .argument("<claw>", "the identifier of the claw that hosts it from now on");
  const examples = ["harborforge-agents agents move bob-1 claw-2"];
  serviceCommand(shell, command, examples, async ({ caller, out }, { output }, [agentId = "", claw = ""]) => {
    await printAgent(out, output, await moveAgent(caller, agentId, claw));
    return EXIT_OK;
  });
}

function registerDelete(shell: Shell, agents: Command): void {
  const command = agents
    .command("delete")
    .description("delete an agent; its user stays")
    .argument("<agent-id>", "which agent");
  const examples = ["harborforge-agents agents delete bob-1"];
  serviceCommand(shell, command, examples, async ({ caller, out }, { output }, [agentId = ""]) => {
    const revision = await deleteAgent(caller, agentId);
    const text = `Deleted agent ${printable(agentId)} at revision ${revision}.`;
    const json = jsonText({ revision: String(revision) }, output === "json");
    await out.print(`${output === "table" ? text : json}\n`);
    return EXIT_OK;
  });
}

function registerTransitions(shell: Shell, agents: Command): void {
  interface Flags extends PageFlags {
    readonly after?: bigint;
    readonly oldestFirst?: true;
  }
  const command = addPageOptions(
    agents.command("transitions").description("list transitions of agents, newest first"),
    50,
  )
    .argument("[agent-id]", "which agent; default: all agents")
    .option("--after <revision>", "only transitions after this revision", idArgument)
    .option("--oldest-first", "oldest transitions first");
  const examples = [
    "harborforge-agents agents transitions bob-1",
    "harborforge-agents agents transitions --oldest-first --after 4711 --limit all -o jsonl",
  ];
  serviceCommand<Flags>(shell, command, examples, async ({ caller, out, err }, flags, [agentId]) => {
    const { after: afterRevision = 0n, oldestFirst } = flags;
    const query = { afterRevision, newestFirst: oldestFirst !== true, ...(agentId === undefined ? {} : { agentId }) };
    const pages = pagesOf(flags, (page) => listTransitions(caller, { ...page, ...query }));
    const none = "There are no such transitions.";
    await printList({ out, err }, flags.output, pages, {
      name: "transitions",
      columns: transitionColumns(Date.now()),
      none,
    });
    return EXIT_OK;
  });
}

function printAgent(out: Printer, output: OutputFormat, agent: AgentRecord): Promise<void> {
  return printOne(out, output, agent, (one) => agentFacts(one, Date.now()));
}
