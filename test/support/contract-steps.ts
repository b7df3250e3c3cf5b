import { timestampMs } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { expect } from "vitest";
import { type Agent, type AgentStatus, ExhaustReason } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import type { User } from "../../gen/harborforge/agents/v1/user_pb.ts";
import type { Reason } from "../../src/domain/errors.ts";
import type { ProtocolClients } from "./protocol-clients.ts";
import { type Failure, failure } from "./rpc-clients.ts";
import { unique } from "./service.ts";

export interface Refused {
  /** `google.rpc.ErrorInfo.metadata`, complete. */
  readonly metadata?: Readonly<Record<string, string>>;
  /** The paths of `google.rpc.BadRequest`, in order. */
  readonly fields?: readonly string[];
}

/** The path with the names of the proto files. JSON callers get `pageSize`: `contract-json.test.ts` checks that. */
function protoPath(path: string): string {
  return path.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** A call that must be rejected, with these details and no others. Paths have the names of the proto files. */
export async function expectRefusal(
  call: Promise<unknown>,
  code: Code,
  reason: Reason,
  { metadata = {}, fields = [] }: Refused = {},
): Promise<Failure> {
  const failed = await failure(call);
  const spelled = { metadata: { ...failed.metadata }, fields: failed.fields.map(protoPath) };
  if (spelled.metadata.field !== undefined) spelled.metadata.field = protoPath(spelled.metadata.field);
  expect({ ...failed, ...spelled, code: Code[failed.code] }).toEqual({
    code: Code[code],
    message: expect.stringMatching(/\S/),
    reason,
    domain: "harborforge.agents",
    metadata,
    fields,
    retryMs: undefined,
  });
  return failed;
}

/** A call that must be rejected for these fields. */
export async function expectInvalid(call: Promise<unknown>, ...fields: [string, ...string[]]): Promise<Failure> {
  return await expectRefusal(call, Code.InvalidArgument, "INVALID_FIELD", { fields, metadata: { field: fields[0] } });
}

/** A call that must be rejected for its page token. */
export async function expectInvalidToken(call: Promise<unknown>): Promise<Failure> {
  const details = { fields: ["page_token"], metadata: { field: "page_token" } };
  return await expectRefusal(call, Code.InvalidArgument, "INVALID_PAGE_TOKEN", details);
}

/** A call that must be rejected because its request_id belongs to another one. */
export async function expectReusedRequestId(call: Promise<unknown>, requestId: string): Promise<Failure> {
  const details = { fields: ["request_id"], metadata: { field: "request_id", requestId } };
  return await expectRefusal(call, Code.InvalidArgument, "REQUEST_ID_REUSED", details);
}

/** A value that must be set. */
export function present<T>(value: T | undefined): T {
  if (value === undefined) throw new Error("a value is missing");
  return value;
}

export interface Bound {
  readonly agent: Agent;
  readonly user: User;
  readonly agentId: string;
  readonly claw: string;
}

/** A user of one test, with an agent on a claw that may be shared. */
export async function newAgent({ users }: Pick<ProtocolClients, "users">, claw = unique("claw")): Promise<Bound> {
  const agentId = unique("agent");
  const created = await users.createUser({ username: unique("user"), agentId, clawIdentifier: claw });
  return { agent: present(created.agent), user: present(created.user), agentId, claw };
}

/** A user of one test, without an agent. */
export async function newUser({ users }: Pick<ProtocolClients, "users">): Promise<User> {
  return present((await users.createUser({ username: unique("user") })).user);
}

/** A service's change. */
export async function setStatus(
  { agents }: Pick<ProtocolClients, "agents">,
  agentId: string,
  status: AgentStatus,
): Promise<Agent> {
  return present((await agents.updateAgentStatus({ agentId, status })).agent);
}

export async function getAgent({ agents }: Pick<ProtocolClients, "agents">, agentId: string): Promise<Agent> {
  return present((await agents.getAgent({ key: { case: "agentId", value: agentId } })).agent);
}

/** A rate limit for so many seconds, as a request field. */
export function rateLimit(seconds: bigint) {
  const recovery = { case: "retryAfter", value: { seconds } } as const;
  return { reason: ExhaustReason.RATE_LIMIT, recovery };
}

/** The milliseconds by which a timestamp is ahead of this machine's clock, which is also the database's. */
export function aheadMs(timestamp: Agent["createdAt"]): number {
  return timestampMs(present(timestamp)) - Date.now();
}

/** The tolerated difference between the clocks of a replica and the database. */
const CLOCK_ERROR_MS = 1_000;

/**
 * Expects an instant `ms` after a moment between `since` (by this machine's clock) and now, however long ago
 * that is.
 */
export function expectAhead(timestamp: Agent["createdAt"], ms: number, since: number): void {
  const from = timestampMs(present(timestamp)) - ms;
  expect(from).toBeGreaterThanOrEqual(since - CLOCK_ERROR_MS);
  expect(from).toBeLessThanOrEqual(Date.now() + CLOCK_ERROR_MS);
}

/** A page token with another last character that decodes to something else. */
export function tampered(token: string): string {
  const at = token.length >> 1;
  return `${token.slice(0, at)}${token[at] === "A" ? "B" : "A"}${token.slice(at + 1)}`;
}
