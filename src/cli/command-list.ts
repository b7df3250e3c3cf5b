import type { Command } from "commander";
import type { Shell } from "./shell.ts";

/** The file of a command. */
export interface CommandFile {
  /** Adds arguments, options and the action to the command, which has its name and summary already. */
  define(command: Command, shell: Shell): void;
}

/** A command. Only the file of the command that runs is loaded, so that each starts quickly. */
export interface ListedCommand {
  /** Its words, such as `agents list`. */
  readonly words: string;
  /** For lists of commands: at most 60 characters. */
  readonly summary: string;
  load(): Promise<CommandFile>;
}

/** The summaries of the first words that several commands have. */
export const GROUPS: Readonly<Record<string, string>> = {
  tokens: "issue, list and revoke API tokens in the database",
  users: "create, read, change and delete users",
  agents: "create, read, move, watch and delete agents",
};

/** All commands, in the order of `--help`. A new one needs a line here, its file, and a row in docs/cli.md. */
export const COMMANDS: readonly ListedCommand[] = [
  { words: "serve", summary: "run the service", load: () => import("./commands/serve.ts") },
  {
    words: "migrate",
    summary: "migrate the database to the newest schema",
    load: () => import("./commands/migrate.ts"),
  },
  { words: "tokens issue", summary: "issue a token", load: () => import("./commands/tokens/issue.ts") },
  {
    words: "tokens list",
    summary: "list all tokens, without their secrets",
    load: () => import("./commands/tokens/list.ts"),
  },
  {
    words: "tokens revoke",
    summary: "revoke a token; takes effect within a second",
    load: () => import("./commands/tokens/revoke.ts"),
  },
  {
    words: "users create",
    summary: "create a user, optionally with its agent",
    load: () => import("./commands/users/create.ts"),
  },
  { words: "users list", summary: "list users", load: () => import("./commands/users/list.ts") },
  { words: "users get", summary: "show one user", load: () => import("./commands/users/get.ts") },
  {
    words: "users update",
    summary: "change a user; other fields stay unchanged",
    load: () => import("./commands/users/update.ts"),
  },
  { words: "users delete", summary: "delete a user and its agent", load: () => import("./commands/users/delete.ts") },
  {
    words: "agents create",
    summary: "create an agent for a user who has none",
    load: () => import("./commands/agents/create.ts"),
  },
  { words: "agents list", summary: "list agents", load: () => import("./commands/agents/list.ts") },
  { words: "agents get", summary: "show one agent", load: () => import("./commands/agents/get.ts") },
  {
    words: "agents move",
    summary: "move an agent to another claw",
    load: () => import("./commands/agents/move.ts"),
  },
  {
    words: "agents status",
    summary: "set an agent's status as a service does",
    load: () => import("./commands/agents/status.ts"),
  },
  {
    words: "agents delete",
    summary: "delete an agent; its user stays",
    load: () => import("./commands/agents/delete.ts"),
  },
  {
    words: "agents transitions",
    summary: "list transitions of agents, newest first",
    load: () => import("./commands/agents/transitions.ts"),
  },
  {
    words: "agents enrol",
    summary: "create the users and agents of an OpenClaw gateway",
    load: () => import("./commands/agents/enrol.ts"),
  },
  { words: "agents watch", summary: "watch agents until Ctrl-C", load: () => import("./commands/agents/watch.ts") },
  {
    words: "fleet",
    summary: "count agents by status and claw; show brake and pace",
    load: () => import("./commands/fleet.ts"),
  },
  {
    words: "incidents",
    summary: "list claws that fell silent, newest first",
    load: () => import("./commands/incidents.ts"),
  },
  {
    words: "beat",
    summary: "send the heartbeats of an agent until Ctrl-C",
    load: () => import("./commands/beat.ts"),
  },
  { words: "simulate", summary: "simulate a fleet at work", load: () => import("./commands/simulate.ts") },
  {
    words: "completion",
    summary: "print the completion script for a shell",
    load: () => import("./commands/completion.ts"),
  },
];
