import { Argument, type Command, Option } from "commander";
import {
  AGENT_STATUSES,
  type AgentStatus,
  EXHAUST_REASONS,
  type ExhaustReason,
  type ReportedExhaustion,
} from "../../../common/contract/enum-names.ts";
import type { Micros } from "../../../common/contract/time.ts";
import { choiceArgument, durationArgument, idArgument, instantArgument } from "../arguments.ts";
import { CommandFailure } from "../call-failure.ts";
import { updateAgentStatus } from "../calls/service-calls.ts";
import { EXIT_OK, EXIT_WRONG_SETTING } from "../exit-codes.ts";
import { agentFacts } from "../records/agent-columns.ts";
import { printOne } from "../records/output.ts";
import { type Shell, serviceCommand } from "../shell.ts";

/** The flags of an exhaustion. */
export interface ExhaustionFlags {
  readonly reason?: ExhaustReason;
  readonly retryAfter?: number;
  readonly recoveryAt?: Micros;
}

const LONGEST_RECOVERY_MS = 366 * 24 * 3_600_000;

export function addExhaustionOptions(command: Command): Command {
  const reason = new Option("--reason <reason>", "the reason of the exhaustion").choices(EXHAUST_REASONS);
  return command
    .addOption(reason.argParser(choiceArgument(EXHAUST_REASONS)))
    .option("--retry-after <time>", "how long it lasts, such as 90s or 2h", durationArgument(0, LONGEST_RECOVERY_MS))
    .option("--recovery-at <instant>", "when it ends, such as 2026-11-22T22:30:00Z", instantArgument);
}

/**
 * The exhaustion that the flags describe.
 *
 * @throws CommandFailure if the flags do not match the status
 */
export function exhaustionFor(status: AgentStatus | undefined, flags: ExhaustionFlags): ReportedExhaustion | undefined {
  const { reason, retryAfter, recoveryAt } = flags;
  if (status !== "exhausted") {
    if (reason === undefined && retryAfter === undefined && recoveryAt === undefined) return undefined;
    throw wrong("--reason, --retry-after and --recovery-at need the status exhausted.");
  }
  if (reason === undefined) throw wrong("The status exhausted needs --reason: rate_limit or billing.");
  if (retryAfter !== undefined && recoveryAt !== undefined) {
    throw wrong("Use either --retry-after or --recovery-at.");
  }
  return {
    reason,
    ...(retryAfter === undefined ? {} : { retryAfterMs: retryAfter }),
    ...(recoveryAt === undefined ? {} : { recoveryAt }),
  };
}

export function registerStatus(shell: Shell, agents: Command): void {
  interface Flags extends ExhaustionFlags {
    readonly expectedRevision?: bigint;
    readonly hold?: number;
  }
  const command = agents
    .command("status")
    .description("set an agent's status as a service does")
    .argument("<agent-id>", "which agent")
    .addArgument(new Argument("<status>", "its new status").choices(AGENT_STATUSES));
  addExhaustionOptions(command)
    .option("--expected-revision <revision>", "only if the agent has not changed since", idArgument)
    .option(
      "--hold <time>",
      "how long it takes precedence over reports of an agent that does not know of it (default: 60s, or until the recovery)",
      durationArgument(0, 3_600_000),
    );
  const examples = [
    "harborforge-agents agents status bob-1 on_call --expected-revision 4711",
    "harborforge-agents agents status bob-1 exhausted --reason rate_limit --retry-after 2m",
  ];
  serviceCommand<Flags>(shell, command, examples, async ({ caller, out }, flags, [agentId = "", text = ""]) => {
    const status = choiceArgument(AGENT_STATUSES)(text);
    const exhaustion = exhaustionFor(status, flags);
    const { expectedRevision, hold } = flags;
    const agent = await updateAgentStatus(caller, {
      agentId,
      status,
      ...(exhaustion === undefined ? {} : { exhaustion }),
      ...(expectedRevision === undefined ? {} : { expectedRevision }),
      ...(hold === undefined ? {} : { holdMs: hold }),
    });
    await printOne(out, flags.output, agent, (one) => agentFacts(one, Date.now()));
    return EXIT_OK;
  });
}

function wrong(sentence: string): CommandFailure {
  return new CommandFailure(sentence, EXIT_WRONG_SETTING);
}
