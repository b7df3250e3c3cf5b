import type { DescMethod, DescService } from "@bufbuild/protobuf";
import { ServerReflection } from "../../../gen/grpc/reflection/v1/reflection_pb.ts";
import { ServerReflection as ServerReflectionAlpha } from "../../../gen/grpc/reflection/v1alpha/reflection_pb.ts";
import { AgentService } from "../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { TokenService } from "../../../gen/harborforge/agents/v1/token_service_pb.ts";
import { UserService } from "../../../gen/harborforge/agents/v1/user_service_pb.ts";
import { WakeService } from "../../../gen/harborforge/agents/v1/wake_service_pb.ts";
import { Health } from "../../../gen/health/v1/health_pb.ts";
import { type Principal, type Role, roleDenied } from "../../domain/principal.ts";
import type { AccessRule } from "./method-access.ts";

const only = (...roles: Role[]): AccessRule => ({ callers: new Set(roles) });
const audited = (...roles: Role[]): AccessRule => ({ callers: new Set(roles), audited: true });

/** A table without a rule for each method of its service does not compile. */
type Rules<Service extends DescService> = Readonly<Record<keyof Service["method"], AccessRule>>;

/** Agents are among them. The scoped backend limits what they see to their scope. */
const readers = only("agent", "service", "admin", "viewer");

const userService: Rules<typeof UserService> = {
  createUser: audited("admin"),
  getUser: only("service", "admin", "viewer"),
  listUsers: only("service", "admin", "viewer"),
  updateUser: audited("admin"),
  deleteUser: audited("admin"),
};

const agentService: Rules<typeof AgentService> = {
  createAgent: audited("admin"),
  getAgent: readers,
  batchGetAgents: readers,
  listAgents: readers,
  getFleet: readers,
  moveAgent: audited("admin"),
  updateAgentStatus: audited("service", "admin"),
  deleteAgent: audited("admin"),
  listAgentTransitions: readers,
  listIncidents: readers,
  // Only agents send heartbeats. An admin does not send them for an agent.
  sendHeartbeat: only("agent"),
  heartbeat: only("agent"),
  watchAgents: readers,
  watchFleet: readers,
};

const tokenService: Rules<typeof TokenService> = {
  issueToken: audited("admin"),
  listTokens: only("admin"),
  revokeToken: audited("admin"),
};

const wakeService: Rules<typeof WakeService> = {
  wakeAgent: audited("service", "admin"),
  cancelWake: audited("service", "admin"),
  getWake: only("service", "admin", "viewer"),
  listWakes: only("service", "admin", "viewer"),
  followWake: only("service", "admin"),
  // A pause concerns the wakes of all services.
  pauseWakes: audited("admin"),
  resumeWakes: audited("admin"),
  listPauses: only("service", "admin", "viewer"),
};

/** Load balancers and probes have no credentials. They learn only whether this replica serves. */
const health: Rules<typeof Health> = {
  check: { callers: "public" },
  list: { callers: "public" },
  watch: { callers: "public" },
};

/** Reflection contains only the published contract. */
const reflection: Rules<typeof ServerReflection> = { serverReflectionInfo: { callers: "authenticated" } };
const reflectionAlpha: Rules<typeof ServerReflectionAlpha> = { serverReflectionInfo: { callers: "authenticated" } };

/** The rules of all methods. Access to other methods is denied. */
const TABLE = new Map<string, Readonly<Record<string, AccessRule>>>([
  [UserService.typeName, userService],
  [AgentService.typeName, agentService],
  [TokenService.typeName, tokenService],
  [WakeService.typeName, wakeService],
  [Health.typeName, health],
  [ServerReflection.typeName, reflection],
  [ServerReflectionAlpha.typeName, reflectionAlpha],
]);

/** The roles that may read `GET /metrics`. It describes the deployment and names no agent. */
const METRICS_READERS: ReadonlySet<string> = new Set<Principal["role"]>(["service", "admin", "viewer", "anyone"]);

/** Authorizes a request for `GET /metrics`. @throws Refusal `PERMISSION_DENIED` */
export function admitToMetrics({ role }: Principal): void {
  if (!METRICS_READERS.has(role)) throw roleDenied(role, "GET /metrics");
}

/** The rule of a method. Undefined: access is denied. */
export function accessRule(method: DescMethod): AccessRule | undefined {
  const rules = TABLE.get(method.parent.typeName);
  return rules !== undefined && Object.hasOwn(rules, method.localName) ? rules[method.localName] : undefined;
}
