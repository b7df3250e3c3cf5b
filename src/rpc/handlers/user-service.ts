import type { ServiceImpl } from "@connectrpc/connect";
import {
  type CreateUserRequest,
  type GetUserRequest,
  type UpdateUserRequest,
  UserService,
} from "../../../gen/harborforge/agents/v1/user_service_pb.ts";
import {
  readDisplayName,
  readEmail,
  readFields,
  readId,
  readName,
  readOptionalName,
  readPageSize,
  type Violations,
} from "../../domain/validation.ts";
import type { Backend, NewUser, UserKey } from "../backend.ts";
import { agentMessage } from "../convert/agent.ts";
import { readPageToken, writePageToken } from "../convert/page-token.ts";
import { userMessage } from "../convert/user.ts";
import { readMutation } from "./mutation.ts";

const METHODS = UserService.method;

/** `UserService` over whatever keeps the users. Refusals are thrown as they are; the pipeline turns them into errors. */
export function createUserService({ users }: Pick<Backend, "users">): ServiceImpl<typeof UserService> {
  return {
    async createUser(request, context) {
      const { user, mutation } = readFields((violations) => ({
        user: readNewUser(violations, request),
        mutation: readMutation(violations, context, METHODS.createUser, request),
      }));
      const created = await users.create(user, mutation);
      return { user: userMessage(created.user), agent: created.agent && agentMessage(created.agent) };
    },

    async getUser(request) {
      const key = readFields((violations) => readUserKey(violations, request.key));
      return { user: userMessage(await users.get(key)) };
    },

    async listUsers(request) {
      const limit = readFields((violations) => readPageSize(violations, "page_size", request.pageSize));
      const position = readPageToken(METHODS.listUsers, request, request.pageToken);
      const page = await users.list({ after: position?.after, limit });
      return {
        users: page.rows.map(userMessage),
        nextPageToken:
          page.next === undefined ? "" : writePageToken(METHODS.listUsers, request, { after: page.next, asOf: 0n }),
      };
    },

    async updateUser(request, context) {
      const { id, change, mutation } = readFields((violations) => ({
        id: readId(violations, "id", request.id),
        change: readUserChange(violations, request),
        mutation: readMutation(violations, context, METHODS.updateUser, request),
      }));
      return { user: userMessage(await users.update(id, change, mutation)) };
    },

    async deleteUser(request, context) {
      const { id, mutation } = readFields((violations) => ({
        id: readId(violations, "id", request.id),
        mutation: readMutation(violations, context, METHODS.deleteUser, request),
      }));
      await users.delete(id, mutation);
      return {};
    },
  };
}

function readNewUser(violations: Violations, request: CreateUserRequest): NewUser {
  const agentId = readOptionalName(violations, "agent_id", request.agentId);
  const clawIdentifier = readOptionalName(violations, "claw_identifier", request.clawIdentifier);
  if (agentId === undefined && clawIdentifier !== undefined) {
    violations.add("agent_id", "must be set together with claw_identifier");
  }
  if (agentId !== undefined && clawIdentifier === undefined) {
    violations.add("claw_identifier", "must be set together with agent_id");
  }
  return {
    username: readName(violations, "username", request.username),
    email: readEmail(violations, "email", request.email),
    displayName: readDisplayName(violations, "display_name", request.displayName),
    agent: agentId === undefined || clawIdentifier === undefined ? undefined : { agentId, clawIdentifier },
  };
}

function readUserKey(violations: Violations, key: GetUserRequest["key"]): UserKey {
  switch (key.case) {
    case "id":
      return { id: readId(violations, "id", key.value) };
    case "username":
      return { username: readName(violations, "username", key.value) };
    case "agentId":
      return { agentId: readName(violations, "agent_id", key.value) };
    case undefined:
      violations.add("key", "must be set: id, username or agent_id");
      return { id: 0n };
  }
}

/** Unset leaves a field as it is; an empty address removes the one that was there. */
function readUserChange(
  violations: Violations,
  request: UpdateUserRequest,
): { readonly email?: string | null; readonly displayName?: string } {
  return {
    ...(request.email === undefined ? {} : { email: readEmail(violations, "email", request.email) }),
    ...(request.displayName === undefined
      ? {}
      : { displayName: readDisplayName(violations, "display_name", request.displayName) }),
  };
}
