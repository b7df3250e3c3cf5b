import type { Command } from "commander";
import { CallError } from "harborforge-agents-client";
import { CommandFailure } from "../call-failure.ts";
import { type Caller, createAgent, createUser, getAgent, getUser } from "../calls/service-calls.ts";
import {
  type EnrolCalls,
  enrol,
  GatewayConfigError,
  type GatewayRoster,
  isConflict,
  planEnrolment,
  readRoster,
  stepText,
} from "../enrol/enrolment.ts";
import { readGatewayConfig } from "../enrol/read-config.ts";
import { EXIT_CONFLICT, EXIT_OK, EXIT_WRONG_SETTING } from "../exit-codes.ts";
import { connectedCommand, type Shell } from "../shell.ts";
import { printable } from "../terminal/printable.ts";

export function registerEnrol(shell: Shell, agents: Command): void {
  interface Flags {
    readonly claw?: string;
    readonly from: string;
    readonly dryRun?: boolean;
  }
  const command = agents
    .command("enrol")
    .description("create the users and agents of an OpenClaw gateway; can be repeated")
    .requiredOption("--from <file>", "the gateway's configuration, openclaw.json")
    .option("--claw <identifier>", "the claw (default: that of the plugin's settings in the file)")
    .option("--dry-run", "print the plan, and change nothing");
  const examples = [
    "harborforge-agents agents enrol --claw claw-1 --from ~/.openclaw/openclaw.json --dry-run",
    "harborforge-agents agents enrol --claw claw-1 --from ~/.openclaw/openclaw.json",
  ];
  connectedCommand<Flags>(shell, command, examples, async ({ caller, out }, { claw, from, dryRun = false }) => {
    const roster = rosterOf(from, claw);
    const calls = enrolCalls(caller);
    const steps = await planEnrolment(calls, roster);
    await out.print(steps.map((step) => `${printable(stepText(step))}\n`).join(""));
    let created = 0;
    for (const step of dryRun ? [] : steps) {
      await enrol(calls, roster.claw, step);
      if (step.kind === "create_user" || step.kind === "create_agent") created += 1;
    }
    await out.print(dryRun ? "Nothing was changed.\n" : `Created ${created} of ${steps.length} agents.\n`);
    return steps.some(isConflict) ? EXIT_CONFLICT : EXIT_OK;
  });
}

function rosterOf(path: string, claw: string | undefined): GatewayRoster {
  try {
    return readRoster(readGatewayConfig(path), claw);
  } catch (error) {
    if (!(error instanceof GatewayConfigError)) throw error;
    throw new CommandFailure(`--from: ${printable(error.message)}`, EXIT_WRONG_SETTING);
  }
}

function enrolCalls(caller: Caller): EnrolCalls {
  return {
    clawOf: async (agentId) => (await orUndefined(getAgent(caller, { agentId })))?.clawIdentifier,
    userNamed: (username) => orUndefined(getUser(caller, { username })),
    createUser: async (agentId, clawIdentifier) => {
      await createUser(caller, { username: agentId, displayName: agentId, agent: { agentId, clawIdentifier } });
    },
    createAgent: async (userId, agentId, clawIdentifier) => {
      await createAgent(caller, { userId, agentId, clawIdentifier });
    },
  };
}

async function orUndefined<Answer>(call: Promise<Answer>): Promise<Answer | undefined> {
  try {
    return await call;
  } catch (error) {
    if (error instanceof CallError && error.code === "NOT_FOUND") return undefined;
    throw error;
  }
}
