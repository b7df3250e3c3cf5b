import type { Command } from "commander";
import { CommandFailure } from "../../call-failure.ts";
import { EXIT_OK, EXIT_WRONG_SETTING } from "../../exit-codes.ts";
import { agentFacts } from "../../records/agent-columns.ts";
import { printOne } from "../../records/output.ts";
import { userFacts } from "../../records/user-columns.ts";
import { type Shell, serviceCommand } from "../../shell.ts";

interface Flags {
  readonly email?: string;
  readonly displayName?: string;
  readonly agentId?: string;
  readonly claw?: string;
}

/** Facts of a new agent that the facts of its user do not contain. */
const NEW_AGENT_FACTS: ReadonlySet<string> = new Set(["claw", "status", "lease ends"]);

export function define(command: Command, shell: Shell): void {
  command
    .argument("<username>", "1 to 128 characters, unique, never changes")
    .option("--email <address>", "unique; optional")
    .option("--display-name <name>", "the name to show (default: the username)")
    .option("--agent-id <id>", "also create this agent for the user; needs --claw")
    .option("--claw <identifier>", "the claw that hosts the agent");
  const examples = [
    "harborforge-agents users create ada",
    'harborforge-agents users create bob --display-name "Bob B." --agent-id bob-1 --claw claw-1',
  ];
  serviceCommand<Flags>(shell, command, examples, async ({ caller, calls, out }, flags, [username = ""]) => {
    const { email, displayName, agentId, claw } = flags;
    if ((agentId === undefined) !== (claw === undefined)) {
      throw new CommandFailure("--agent-id and --claw must be used together.", EXIT_WRONG_SETTING);
    }
    const made = await calls.createUser(caller, {
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
