import { type Command, Option } from "commander";
import { choiceArgument } from "../arguments.ts";
import { CommandFailure } from "../call-failure.ts";
import { createUser, deleteUser, getUser, listUsers, type UserKey, updateUser } from "../calls/service-calls.ts";
import type { ServiceContext } from "../connection/service-context.ts";
import { EXIT_OK, EXIT_WRONG_SETTING } from "../exit-codes.ts";
import { agentFacts } from "../records/agent-columns.ts";
import { type Fact, jsonText, printList, printOne } from "../records/output.ts";
import { addPageOptions, type PageFlags, pagesOf } from "../records/pages.ts";
import type { UserRecord } from "../records/records.ts";
import { type Shell, serviceCommand } from "../shell.ts";
import { printable } from "../terminal/printable.ts";
import type { Column } from "../terminal/table.ts";
import { timeText } from "../terminal/times.ts";

export function registerUsers(shell: Shell): void {
  const users = shell.program.command("users").description("create, read, change and delete users");
  registerCreate(shell, users);
  registerList(shell, users);
  registerGet(shell, users);
  registerUpdate(shell, users);
  registerDelete(shell, users);
}

function registerCreate(shell: Shell, users: Command): void {
  interface Flags {
    readonly email?: string;
    readonly displayName?: string;
    readonly agentId?: string;
    readonly claw?: string;
  }
  const command = users
    .command("create")
    .description("create a user, optionally with its agent")
    .argument("<username>", "1 to 128 characters, unique, never changes")
    .option("--email <address>", "unique; optional")
    .option("--display-name <name>", "the name to show (default: the username)")
    .option("--agent-id <id>", "also create this agent for the user; needs --claw")
    .option("--claw <identifier>", "the claw that hosts the agent");
  const examples = [
    "harborforge-agents users create ada",
    'harborforge-agents users create bob --display-name "Bob B." --agent-id bob-1 --claw claw-1',
  ];
  serviceCommand<Flags>(shell, command, examples, async ({ caller, out }, flags, [username = ""]) => {
    const { email, displayName, agentId, claw } = flags;
    if ((agentId === undefined) !== (claw === undefined)) {
      throw new CommandFailure("--agent-id and --claw must be used together.", EXIT_WRONG_SETTING);
    }
    const made = await createUser(caller, {
      username,
      displayName: displayName ?? username,
      ...(email === undefined ? {} : { email }),
      ...(agentId === undefined || claw === undefined ? {} : { agent: { agentId, clawIdentifier: claw } }),
    });
    const { agent } = made;
    await printOne(out, flags.output, made, ({ user }) => [
      ...userFacts(user),
      ...(agent === undefined ? [] : agentFacts(agent, Date.now()).filter(([name]) => NEW_AGENT_FACTS.has(name))),
    ]);
    return EXIT_OK;
  });
}

/** Facts of a new agent that the facts of its user do not contain. */
const NEW_AGENT_FACTS: ReadonlySet<string> = new Set(["claw", "status", "lease ends"]);

function registerList(shell: Shell, users: Command): void {
  const command = addPageOptions(users.command("list").description("list users"), Number.POSITIVE_INFINITY);
  const examples = [
    "harborforge-agents users list --limit 20",
    "harborforge-agents users list -o jsonl | jq -r .username",
  ];
  serviceCommand<PageFlags>(shell, command, examples, async ({ caller, out, err }, flags) => {
    const pages = pagesOf(flags, (page) => listUsers(caller, page));
    const look = { name: "users", columns: userColumns(Date.now()), none: "There are no users." };
    await printList({ out, err }, flags.output, pages, look);
    return EXIT_OK;
  });
}

function registerGet(shell: Shell, users: Command): void {
  const command = addKey(users.command("get").description("show one user"));
  const examples = [
    "harborforge-agents users get ada",
    "harborforge-agents users get 17",
    "harborforge-agents users get --by agent-id bob-1",
  ];
  serviceCommand<KeyFlags>(shell, command, examples, async ({ caller, out }, flags, [text = ""]) => {
    await printOne(out, flags.output, await getUser(caller, keyOf(text, flags)), userFacts);
    return EXIT_OK;
  });
}

function registerUpdate(shell: Shell, users: Command): void {
  interface Flags extends KeyFlags {
    readonly email?: string;
    readonly displayName?: string;
  }
  const command = addKey(users.command("update").description("change a user; other fields stay unchanged"))
    .option("--email <address>", 'the new address; "" removes it')
    .option("--display-name <name>", "the new name to show");
  const examples = [
    'harborforge-agents users update ada --display-name "Ada L."',
    'harborforge-agents users update 17 --email ""',
  ];
  serviceCommand<Flags>(shell, command, examples, async (context, flags, [text = ""]) => {
    const { email, displayName } = flags;
    if (email === undefined && displayName === undefined) {
      throw new CommandFailure("Nothing to change: use --email or --display-name.", EXIT_WRONG_SETTING);
    }
    const change = {
      ...(email === undefined ? {} : { email }),
      ...(displayName === undefined ? {} : { displayName }),
    };
    const user = await updateUser(context.caller, await idOf(context, keyOf(text, flags)), change);
    await printOne(context.out, flags.output, user, userFacts);
    return EXIT_OK;
  });
}

function registerDelete(shell: Shell, users: Command): void {
  const command = addKey(users.command("delete").description("delete a user and its agent"));
  const examples = ["harborforge-agents users delete ada"];
  serviceCommand<KeyFlags>(shell, command, examples, async (context, flags, [text = ""]) => {
    await deleteUser(context.caller, await idOf(context, keyOf(text, flags)));
    const done = flags.output === "table" ? `Deleted user ${printable(text)}.` : jsonText({}, false);
    await context.out.print(`${done}\n`);
    return EXIT_OK;
  });
}

const KEYS = ["id", "username", "agent_id"] as const;

interface KeyFlags {
  readonly by?: (typeof KEYS)[number];
}

function addKey(command: Command): Command {
  const by = new Option("--by <what>", "the kind of <user> (default: digits are the id, other text is the username)");
  return command
    .argument("<user>", "the user's id or username")
    .addOption(by.choices(["id", "username", "agent-id"]).argParser(choiceArgument(KEYS)));
}

function keyOf(text: string, { by }: KeyFlags): UserKey {
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
async function idOf({ caller }: ServiceContext, key: UserKey): Promise<bigint> {
  return "id" in key ? key.id : (await getUser(caller, key)).id;
}

function userColumns(nowMs: number): readonly Column<UserRecord>[] {
  return [
    { heading: "ID", cell: ({ id }) => String(id), align: "right" },
    { heading: "USERNAME", cell: ({ username }) => username },
    { heading: "NAME", cell: ({ displayName }) => displayName },
    { heading: "AGENT", cell: ({ agentId }) => agentId ?? "" },
    { heading: "EMAIL", cell: ({ email }) => email ?? "", optional: true },
    { heading: "CREATED", cell: ({ createdAt }) => timeText(createdAt, nowMs), optional: true },
  ];
}

function userFacts(user: UserRecord): readonly Fact[] {
  const { id, username, displayName, email, agentId, createdAt } = user;
  return [
    ["id", String(id)],
    ["username", username],
    ["name", displayName],
    ["email", email ?? ""],
    ["created", timeText(createdAt, Date.now())],
    ["agent", agentId ?? ""],
  ];
}
