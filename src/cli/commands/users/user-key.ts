import { type Command, Option } from "commander";
import { choiceArgument } from "../../arguments.ts";
import { CommandFailure } from "../../call-failure.ts";
import type { UserKey } from "../../calls/service-calls.ts";
import type { ServiceContext } from "../../connection/service-context.ts";
import { EXIT_WRONG_SETTING } from "../../exit-codes.ts";
import { printable } from "../../terminal/printable.ts";

const KEYS = ["id", "username", "agent_id"] as const;

/** How a command names a user. */
export interface KeyFlags {
  readonly by?: (typeof KEYS)[number];
}

export function addKey(command: Command): Command {
  const by = new Option("--by <what>", "the kind of <user> (default: digits are the id, other text is the username)");
  return command
    .argument("<user>", "the user's id or username")
    .addOption(by.choices(["id", "username", "agent-id"]).argParser(choiceArgument(KEYS)));
}

/** @throws CommandFailure */
export function keyOf(text: string, { by }: KeyFlags): UserKey {
  const isNumber = /^\d{1,18}$/.test(text);
  switch (by ?? (isNumber ? "id" : "username")) {
    case "username":
      return { username: text };
    case "agent_id":
      return { agentId: text };
    case "id":
      if (isNumber) return { id: BigInt(text) };
      throw new CommandFailure(`"${printable(text)}" is not a user id: it must be digits.`, EXIT_WRONG_SETTING);
  }
}

/** The contract changes users by id. */
export async function idOf({ caller, calls }: ServiceContext, key: UserKey): Promise<bigint> {
  return "id" in key ? key.id : (await calls.getUser(caller, key)).id;
}
