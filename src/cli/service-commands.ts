import { registerAgents } from "./commands/agents.ts";
import { registerBeat } from "./commands/beat.ts";
import { registerCompletion } from "./commands/completion.ts";
import { registerFleet } from "./commands/fleet.ts";
import { registerSimulate } from "./commands/simulate.ts";
import { registerUsers } from "./commands/users.ts";
import type { Registration } from "./program.ts";

/** The commands that call a service, in the order of `--help`. */
export const SERVICE_COMMANDS: readonly Registration[] = [
  registerUsers,
  registerAgents,
  registerFleet,
  registerBeat,
  registerSimulate,
  registerCompletion,
];
