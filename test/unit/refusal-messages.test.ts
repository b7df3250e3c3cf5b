import { expect, test } from "vitest";
import type { Refusal } from "../../src/domain/errors.ts";
import { agentDenied, userDenied } from "../../src/domain/principal.ts";
import { sessionSuperseded, agentNotFound as unknownAgent, wrongClaw } from "../../src/liveness/session-refusals.ts";
import {
  agentIdTaken,
  agentNotFound,
  conflictRefusal,
  tooManyChanges,
  userKeepsChanging,
  userNotFound,
} from "../../src/storage/refusals.ts";

const wanted = { username: "ada", email: "ada@example.org", agentId: "ada-1", userId: 7n };
const conflict = (constraint: string): Refusal => {
  const refusal = conflictRefusal(constraint, wanted);
  if (refusal === undefined) throw new Error(`${constraint} has no refusal`);
  return refusal;
};

test.each([
  [conflict("users_username_key"), ['"ada"']],
  [conflict("users_email_key"), ['"ada@example.org"']],
  [conflict("agents_agent_id_key"), ['"ada-1"']],
  [conflict("agents_user_id_key"), ["user 7 "]],
  [conflict("agents_user_id_fkey"), ["user 7 "]],
  [userNotFound({ username: "ada" }), ['"ada"']],
  [userKeepsChanging(7n), ["user 7 "]],
  [agentNotFound({ agentId: "ada-1" }), ['"ada-1"']],
  [agentNotFound({ userId: 7n }), ["user 7 "]],
  [agentIdTaken("ada-1"), ['"ada-1"']],
  [tooManyChanges("ada-1", 64), ['"ada-1"']],
  [unknownAgent("ada-1"), ['"ada-1"']],
  [wrongClaw({ agentId: "ada-1" }, "claw-1"), ['"ada-1"', '"claw-1"']],
  [sessionSuperseded("ada-1"), ['"ada-1"']],
  [agentDenied("ada-1"), ['"ada-1"']],
  [userDenied(7n), ["user 7."]],
] satisfies [Refusal, string[]][])("the refusal %s names what it is about", (refusal, names) => {
  for (const name of names) expect(refusal.message).toContain(name);
});
