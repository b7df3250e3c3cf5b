import { Argument, type Command } from "commander";
import { AGENT_STATUSES } from "../../../../common/contract/enum-names.ts";
import { choiceArgument, durationArgument, idArgument } from "../../arguments.ts";
import { EXIT_OK } from "../../exit-codes.ts";
import { type Shell, serviceCommand } from "../../shell.ts";
import { addExhaustionOptions, type ExhaustionFlags, exhaustionFor } from "../exhaustion-options.ts";
import { printAgent } from "./print-agent.ts";

interface Flags extends ExhaustionFlags {
  readonly expectedRevision?: bigint;
  readonly hold?: number;
}

export function define(command: Command, shell: Shell): void {
  command
    .argument("<agent-id>", "which agent")
    .addArgument(new Argument("<status>", "its new status").choices(AGENT_STATUSES));
  addExhaustionOptions(command)
    .option("--expected-revision <revision>", "only if the agent has not changed since", idArgument)
    .option(
      "--hold <time>",
      "how long it takes precedence over reports (of an agent that does not know of it); default: 60s, or until the recovery",
      durationArgument(0, 3_600_000),
    );
  const examples = [
    "harborforge-agents agents status bob-1 on_call --expected-revision 4711",
    "harborforge-agents agents status bob-1 exhausted --reason rate_limit --retry-after 2m",
  ];
  serviceCommand<Flags>(shell, command, examples, async ({ caller, calls, out }, flags, [agentId = "", text = ""]) => {
    const status = choiceArgument(AGENT_STATUSES)(text);
    const exhaustion = exhaustionFor(status, flags);
    const { expectedRevision, hold } = flags;
    const agent = await calls.updateAgentStatus(caller, {
      agentId,
      status,
      ...(exhaustion === undefined ? {} : { exhaustion }),
      ...(expectedRevision === undefined ? {} : { expectedRevision }),
      ...(hold === undefined ? {} : { holdMs: hold }),
    });
    await printAgent(out, flags.output, agent);
    return EXIT_OK;
  });
}
