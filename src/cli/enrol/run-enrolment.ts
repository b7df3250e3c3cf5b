import { CallError } from "harborforge-agents-client/internal/calls";
import { CommandFailure } from "../call-failure.ts";
import type { ServiceContext } from "../connection/service-context.ts";
import { EXIT_CONFLICT, EXIT_OK, EXIT_WRONG_SETTING } from "../exit-codes.ts";
import { printable } from "../terminal/printable.ts";
import {
  type EnrolCalls,
  enrol,
  GatewayConfigError,
  type GatewayRoster,
  isConflict,
  planEnrolment,
  readRoster,
  stepText,
} from "./enrolment.ts";
import { readGatewayConfig } from "./read-config.ts";

/** The options of `agents enrol`. */
export interface EnrolFlags {
  readonly claw?: string;
  readonly from: string;
  readonly dryRun?: boolean;
}

/** Prints the plan of an enrolment, and does it. @returns the exit code: 5 if agents or users stand in the way */
export async function runEnrolment(context: ServiceContext, flags: EnrolFlags): Promise<number> {
  const { out } = context;
  const { claw, from, dryRun = false } = flags;
  const roster = rosterOf(from, claw);
  const calls = enrolCalls(context);
  const steps = await planEnrolment(calls, roster);
  await out.print(steps.map((step) => `${printable(stepText(step))}\n`).join(""));
  let created = 0;
  for (const step of dryRun ? [] : steps) {
    await enrol(calls, roster.claw, step);
    if (step.kind === "create_user" || step.kind === "create_agent") created += 1;
  }
  await out.print(dryRun ? "Nothing was changed.\n" : `Created ${created} of ${steps.length} agents.\n`);
  return steps.some(isConflict) ? EXIT_CONFLICT : EXIT_OK;
}

function rosterOf(path: string, claw: string | undefined): GatewayRoster {
  try {
    return readRoster(readGatewayConfig(path), claw);
  } catch (error) {
    if (!(error instanceof GatewayConfigError)) throw error;
    throw new CommandFailure(`--from: ${printable(error.message)}`, EXIT_WRONG_SETTING);
  }
}

function enrolCalls({ caller, calls }: ServiceContext): EnrolCalls {
  return {
    clawOf: async (agentId) => (await orUndefined(calls.getAgent(caller, { agentId })))?.clawIdentifier,
    userNamed: (username) => orUndefined(calls.getUser(caller, { username })),
    createUser: async (agentId, clawIdentifier) => {
      await calls.createUser(caller, { username: agentId, displayName: agentId, agent: { agentId, clawIdentifier } });
    },
    createAgent: async (userId, agentId, clawIdentifier) => {
      await calls.createAgent(caller, { userId, agentId, clawIdentifier });
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
