import type { Command } from "commander";
import type { AgentFilter } from "harborforge-agents-client";
import { AGENT_STATUSES, type AgentStatus } from "../../../common/contract/enum-names.ts";
import { repeatedChoice, repeatedId, repeatedText } from "../arguments.ts";

/** The agents that a command selects. */
export interface SelectionFlags {
  readonly agent?: readonly string[];
  readonly user?: readonly bigint[];
  readonly claw?: readonly string[];
  readonly status?: readonly AgentStatus[];
}

export function addSelectionOptions(command: Command): Command {
  return command
    .optionsGroup("Which agents (repeatable: OR within an option, AND across options):")
    .addOption(repeatedText("--agent <id>", "this agent"))
    .addOption(repeatedId("--user <id>", "the agent of the user with this id"))
    .addOption(repeatedText("--claw <identifier>", "agents of this claw"))
    .addOption(repeatedChoice("--status <status>", "agents in this status", AGENT_STATUSES));
}

export function filterOf({ agent, user, claw, status }: SelectionFlags): AgentFilter {
  return { agentIds: agent ?? [], userIds: user ?? [], clawIdentifiers: claw ?? [], statuses: status ?? [] };
}
