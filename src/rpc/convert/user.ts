import { create } from "@bufbuild/protobuf";
import { timestampOf } from "../../../common/contract/timestamps.ts";
import { type User as UserMessage, UserSchema } from "../../../gen/harborforge/agents/v1/user_pb.ts";
import type { User } from "../../domain/agent.ts";

/** An absent address or agent is unset, never empty. */
export function userMessage(user: User): UserMessage {
  return create(UserSchema, {
    id: user.id,
    username: user.username,
    email: user.email ?? undefined,
    displayName: user.displayName,
    agentId: user.agentId ?? undefined,
    createdAt: timestampOf(user.createdAt),
  });
}
