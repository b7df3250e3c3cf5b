import { type Command, Option } from "commander";
import {
  type AgentStatus,
  EXHAUST_REASONS,
  type ExhaustReason,
  type ReportedExhaustion,
} from "../../../common/contract/enum-names.ts";
import type { Micros } from "../../../common/contract/time.ts";
import { choiceArgument, durationArgument, instantArgument } from "../arguments.ts";
import { CommandFailure } from "../call-failure.ts";
import { EXIT_WRONG_SETTING } from "../exit-codes.ts";

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

function wrong(sentence: string): CommandFailure {
  return new CommandFailure(sentence, EXIT_WRONG_SETTING);
}
