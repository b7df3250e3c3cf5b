import type { ServiceImpl } from "@connectrpc/connect";
import {
  type CreateUserRequest,
  type GetUserRequest,
  type UpdateUserRequest,
  UserService,
} from "../../../gen/harborforge/agents/v1/user_service_pb.ts";
import type { UserChange } from "../../domain/directories.ts";
import { pageSizeOf } from "../../domain/validation.ts";
import { agentMessage } from "../convert/agent.ts";
import { readPageToken, writePageToken } from "../convert/page-token.ts";
import { required } from "../convert/request.ts";
import { userMessage } from "../convert/user.ts";
import type { Backend, NewUser, UserKey } from "./backend.ts";
import { mutationOf } from "./mutation.ts";

const METHODS = UserService.method;

/** Implements `UserService`. Refusals are thrown unchanged; the pipeline turns them into errors. */
export function createUserService({ users }: Pick<Backend, "users">): ServiceImpl<typeof UserService> {
  return {
    async createUser(request, context) {
      const mutation = mutationOf(context, METHODS.createUser, request);
      const created = await users.create(newUserOf(request), mutation);
      return { user: userMessage(created.user), agent: created.agent && agentMessage(created.agent) };
    },

    async getUser(request) {
      return { user: userMessage(await users.get(userKeyOf(request.key))) };
    },

    async listUsers(request) {
      const position = readPageToken(METHODS.listUsers, request, request.pageToken);
      const page = await users.list({ after: position?.after, limit: pageSizeOf(request.pageSize) });
      return {
        users: page.rows.map(userMessage),
        nextPageToken:
          page.next === undefined ? "" : writePageToken(METHODS.listUsers, request, { after: page.next, asOf: 0n }),
      };
    },

    async updateUser(request, context) {
      const mutation = mutationOf(context, METHODS.updateUser, request);
      return { user: userMessage(await users.update(request.id, userChangeOf(request), mutation)) };
    },

    async deleteUser(request, context) {
      await users.delete(request.id, mutationOf(context, METHODS.deleteUser, request));
      return {};
    },
  };
}

/** Here, empty counts as unset. */
function newUserOf({ username, email, displayName, agentId, clawIdentifier }: CreateUserRequest): NewUser {
  return {
    username,
    email: email || null,
    displayName,
    agent: agentId && clawIdentifier ? { agentId, clawIdentifier } : undefined,
  };
}

function userKeyOf(key: GetUserRequest["key"]): UserKey {
  switch (key.case) {
    case "id":
      return { id: key.value };
    case "username":
      return { username: key.value };
    case "agentId":
      return { agentId: key.value };
    case undefined:
      return required<UserKey>(undefined, "key");
  }
}

/** An unset field stays as it is. An empty address removes the address. */
function userChangeOf({ email, displayName }: UpdateUserRequest): UserChange {
  return {
    ...(email === undefined ? {} : { email: email || null }),
    ...(displayName === undefined ? {} : { displayName }),
  };
}
