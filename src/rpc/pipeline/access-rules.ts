import type { DescMethod, DescService } from "@bufbuild/protobuf";
import { ServerReflection } from "../../../gen/grpc/reflection/v1/reflection_pb.ts";
import { ServerReflection as ServerReflectionAlpha } from "../../../gen/grpc/reflection/v1alpha/reflection_pb.ts";
import { AgentService } from "../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { TokenService } from "../../../gen/harborforge/agents/v1/token_service_pb.ts";
import { UserService } from "../../../gen/harborforge/agents/v1/user_service_pb.ts";
import { Health } from "../../../gen/health/v1/health_pb.ts";
import { type Principal, type Role, roleDenied } from "../../domain/principal.ts";
import type { AccessRule } from "./access.ts";

const only = (...roles: Role[]): AccessRule => ({ who: new Set(roles) });
const audited = (...roles: Role[]): AccessRule => ({ who: new Set(roles), audited: true });

/** The compiler refuses a table that lacks a method of its service. */
type Rules<Service extends DescService> = Readonly<Record<keyof Service["method"], AccessRule>>;

/** Agents among them: of what they are answered they see what is within their scope. */
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
  // An agent's own word, which nobody else has: not even an admin beats in its name.
  sendHeartbeat: only("agent"),
  heartbeat: only("agent"),
  watchAgents: readers,
};

const tokenService: Rules<typeof TokenService> = {
  issueToken: audited("admin"),
  listTokens: only("admin"),
  revokeToken: audited("admin"),
};

/** Load balancers and probes have no credentials, and learn nothing but whether this replica serves. */
const health: Rules<typeof Health> = {
  check: { who: "everybody" },
  list: { who: "everybody" },
  watch: { who: "everybody" },
};

/** Tells what the published contract tells, to everybody who is known at all. */
const reflection: Rules<typeof ServerReflection> = { serverReflectionInfo: { who: "known" } };
const reflectionAlpha: Rules<typeof ServerReflectionAlpha> = { serverReflectionInfo: { who: "known" } };

/** The one table of who may call what. */
const TABLE = new Map<string, Readonly<Record<string, AccessRule>>>([
  [UserService.typeName, userService],
  [AgentService.typeName, agentService],
  [TokenService.typeName, tokenService],
  [Health.typeName, health],
  [ServerReflection.typeName, reflection],
  [ServerReflectionAlpha.typeName, reflectionAlpha],
]);

/** Who may read `GET /metrics`, which tells of the deployment and names no agent. */
const METRICS_READERS: ReadonlySet<string> = new Set<Principal["role"]>(["service", "admin", "viewer", "anyone"]);

/** @throws Refusal `PERMISSION_DENIED` */
export function admitToMetrics({ role }: Principal): void {
  if (!METRICS_READERS.has(role)) throw roleDenied(role, "GET /metrics");
}

/** Who may call a method; undefined: nobody. */
export function accessRule(method: DescMethod): AccessRule | undefined {
  const rules = TABLE.get(method.parent.typeName);
  return rules !== undefined && Object.hasOwn(rules, method.localName) ? rules[method.localName] : undefined;
}
