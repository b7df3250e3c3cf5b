import { agentIdIn, agentIdsOf, agentNamesOf } from "../../../common/openclaw/gateway-agents.ts";
import { field, text } from "../../../common/openclaw/values.ts";

/** A gateway's configuration that cannot be used. The message says what to do. */
export class GatewayConfigError extends Error {
  override readonly name = "GatewayConfigError";
}

/** The agents of a gateway, as its plugin reports them. */
export interface GatewayRoster {
  readonly claw: string;
  readonly agentIds: readonly string[];
}

/**
 * Reads the agents of a gateway from its parsed configuration.
 *
 * @param claw the claw that a person named; undefined: that of the plugin's settings
 * @throws GatewayConfigError if the claw is missing or another one, and for agents in other files
 */
export function readRoster(config: unknown, claw: string | undefined): GatewayRoster {
  if (typeof config !== "object" || config === null) throw new GatewayConfigError("the file has no object");
  const agents = field(config, "agents");
  if ("$include" in config || field(agents, "$include") !== undefined) {
    throw new GatewayConfigError("the configuration includes other files. Give a file that has all agents.");
  }
  const entry = field(field(field(config, "plugins"), "entries"), "harborforge");
  const settings = field(entry, "config");
  const set = text(settings, "claw");
  if (claw !== undefined && set !== undefined && claw !== set) {
    throw new GatewayConfigError(`the plugin's settings name the claw "${set}", not "${claw}". Give that one.`);
  }
  const name = claw ?? set;
  if (name === undefined) throw new GatewayConfigError("the plugin's settings name no claw. Give --claw.");
  const names = agentNamesOf(settings);
  const agentIds = agentIdsOf(config).flatMap((id) => agentIdIn(name, names, id) ?? []);
  return { claw: name, agentIds: [...new Set(agentIds)] };
}

/** What the service has for an agent of the roster, and what has to happen. */
export type EnrolStep =
  | { readonly kind: "present"; readonly agentId: string }
  | { readonly kind: "create_user"; readonly agentId: string }
  /** The user exists, and has no agent. */
  | { readonly kind: "create_agent"; readonly agentId: string; readonly userId: bigint }
  /** The agent belongs to another claw. It stays there. */
  | { readonly kind: "elsewhere"; readonly agentId: string; readonly claw: string }
  /** The user of that name has another agent. */
  | { readonly kind: "user_taken"; readonly agentId: string; readonly takenBy: string };

/** The calls of an enrolment. */
export interface EnrolCalls {
  /** The claw of an agent; undefined if the agent does not exist. */
  clawOf(agentId: string): Promise<string | undefined>;
  /** The user with this name; undefined if there is none. */
  userNamed(username: string): Promise<{ readonly id: bigint; readonly agentId: string | undefined } | undefined>;
  createUser(agentId: string, claw: string): Promise<void>;
  createAgent(userId: bigint, agentId: string, claw: string): Promise<void>;
}

/** Compares a roster with the service. Each agent gets a user of its own, named as the agent. Changes nothing. */
export async function planEnrolment(calls: EnrolCalls, { claw, agentIds }: GatewayRoster): Promise<EnrolStep[]> {
  const steps: EnrolStep[] = [];
  for (const agentId of agentIds) steps.push(await planAgent(calls, claw, agentId));
  return steps;
}

async function planAgent(calls: EnrolCalls, claw: string, agentId: string): Promise<EnrolStep> {
  const present = await calls.clawOf(agentId);
  if (present === claw) return { kind: "present", agentId };
  if (present !== undefined) return { kind: "elsewhere", agentId, claw: present };
  const user = await calls.userNamed(agentId);
  if (user === undefined) return { kind: "create_user", agentId };
  if (user.agentId !== undefined) return { kind: "user_taken", agentId, takenBy: user.agentId };
  return { kind: "create_agent", agentId, userId: user.id };
}

/** Does one step of a plan. An agent that exists is never moved. */
export async function enrol(calls: EnrolCalls, claw: string, step: EnrolStep): Promise<void> {
  if (step.kind === "create_user") await calls.createUser(step.agentId, claw);
  if (step.kind === "create_agent") await calls.createAgent(step.userId, step.agentId, claw);
}

/** A step for people. The names come from a file: make them printable before a terminal gets them. */
export function stepText(step: EnrolStep): string {
  switch (step.kind) {
    case "present":
      return `${step.agentId}: exists`;
    case "create_user":
      return `${step.agentId}: create the user and the agent`;
    case "create_agent":
      return `${step.agentId}: create the agent of the user with this name`;
    case "elsewhere":
      return `${step.agentId}: is on claw "${step.claw}" and stays there. Move it with: harborforge-agents agents move`;
    case "user_taken":
      return `${step.agentId}: the user with this name has the agent "${step.takenBy}". Choose another id in the plugin's settings (agents).`;
  }
}

export function isConflict(step: EnrolStep): boolean {
  return step.kind === "elsewhere" || step.kind === "user_taken";
}
