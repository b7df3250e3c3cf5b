import { Argument, type Command, Option } from "commander";
import type { Micros } from "../../contract/time.ts";
import {
  AGENT_STATUSES,
  type AgentStatus,
  EXHAUST_REASONS,
  type ExhaustReason,
  type ReportedExhaustion,
} from "../../contract/words.ts";
import { durationArgument, idArgument, instantArgument, wordArgument } from "../arguments.ts";
import { CommandFailure } from "../call-failure.ts";
import { updateAgentStatus } from "../calls/directory-calls.ts";
import { EXIT_OK, EXIT_WRONG_SETTING } from "../exit-codes.ts";
import { agentFacts } from "../records/agent-words.ts";
import { printOne } from "../records/output.ts";
import { type Shell, serviceCommand } from "../shell.ts";

/** Why and how long, of an agent that is exhausted. */
export interface ExhaustionFlags {
  readonly reason?: ExhaustReason;
  readonly retryAfter?: number;
  readonly recoveryAt?: Micros;
}

const LONGEST_RECOVERY_MS = 366 * 24 * 3_600_000;

export function addExhaustionOptions(command: Command): Command {
  const reason = new Option("--reason <reason>", "why it is exhausted").choices(EXHAUST_REASONS);
  return command
    .addOption(reason.argParser(wordArgument(EXHAUST_REASONS)))
    .option("--retry-after <time>", "for how long, such as 90s or 2h", durationArgument(0, LONGEST_RECOVERY_MS))
    .option("--recovery-at <instant>", "until when, such as 2026-11-22T22:30:00Z", instantArgument);
}

/** What the flags say of an exhaustion. @throws CommandFailure where they do not fit the status */
export function exhaustionFor(status: AgentStatus | undefined, flags: ExhaustionFlags): ReportedExhaustion | undefined {
  const { reason, retryAfter, recoveryAt } = flags;
  if (status !== "exhausted") {
    if (reason === undefined && retryAfter === undefined && recoveryAt === undefined) return undefined;
    throw wrong("--reason, --retry-after and --recovery-at go with the status exhausted only.");
  }
  if (reason === undefined) throw wrong("An exhausted agent needs a --reason: rate_limit or billing.");
  if (retryAfter !== undefined && recoveryAt !== undefined) {
    throw wrong("Give --retry-after or --recovery-at, not both.");
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
    .addArgument(new Argument("<status>", "what it is from now on").choices(AGENT_STATUSES));
  addExhaustionOptions(command)
    .option("--expected-revision <revision>", "only if the agent did not change since", idArgument)
    .option(
      "--hold <time>",
      "how long it stands against reports of an agent that has not heard of it (default: 60s, or until the recovery)",
      durationArgument(0, 3_600_000),
    );
  const examples = [
    "harborforge-agents agents status bob-1 on_call --expected-revision 4711",
    "harborforge-agents agents status bob-1 exhausted --reason rate_limit --retry-after 2m",
  ];
  serviceCommand<Flags>(shell, command, examples, async ({ caller, out }, flags, [agentId = "", text = ""]) => {
    const status = wordArgument(AGENT_STATUSES)(text);
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
