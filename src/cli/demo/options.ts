import { Command, InvalidArgumentError, Option } from "commander";
import { baseUrlOf } from "../../client/transport.ts";
import { parseDuration } from "../../config-values.ts";

export interface DemoOptions {
  /** The URL of the service's gRPC door. */
  readonly address: string;
  /** Agents of each of the three claws. */
  readonly agents: number;
  /** Undefined: until it is interrupted. */
  readonly durationMs: number | undefined;
  readonly seed: number;
  /** How many times quicker than life agents work and claws are lost. Leases are the server's and stay as they are. */
  readonly speed: number;
}

const ADDRESS = "HARBORFORGE_ADDRESS";
const DEFAULT_ADDRESS = "http://127.0.0.1:50051";
const LONGEST_MS = 24 * 3_600_000;

/** The command line of the demo. It prints and throws `CommanderError` for `--help` and for what is wrong. */
export function readDemoOptions(
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): DemoOptions {
  const program: Command = new Command("npm run demo --")
    .description(
      "Three claws with their agents against a running service: beats, calls, work, rate limits, an empty account, a " +
        "claw that is killed and comes back. Runs until Ctrl-C, then its agents say goodbye. Users and agents named " +
        "demo-… are created at the first run and used again by the next.",
    )
    .addOption(
      new Option(
        "--address <url>",
        `the service's gRPC door, as http://host:port or host:port (default: ${DEFAULT_ADDRESS}; env: ${ADDRESS})`,
      ).argParser(readAddress),
    )
    .addOption(new Option("--agents <number>", "agents of each claw, 1 to 100").default(12).argParser(whole(1, 100)))
    .addOption(
      new Option("--duration <time>", "ends by itself after a time such as 60s or 5m, 1s to 24h").argParser(readTime),
    )
    .addOption(
      new Option("--seed <number>", "makes the agents' choices repeatable, 0 to 4294967295")
        .default(1)
        .argParser(whole(0, 2 ** 32 - 1)),
    )
    .addOption(
      new Option("--speed <factor>", "how many times quicker agents work and a claw is lost, 1 to 20")
        .default(1)
        .argParser(whole(1, 20)),
    )
    .exitOverride();
  program.parse(args, { from: "user" });
  const { address, agents, duration, seed, speed } = program.opts<{
    address?: string;
    agents: number;
    duration?: number;
    seed: number;
    speed: number;
  }>();
  const told = address ?? baseUrlOf(env[ADDRESS] || DEFAULT_ADDRESS);
  if (told === undefined) program.error(`error: ${ADDRESS} must be http://host:port or host:port.`);
  return { address: told, agents, durationMs: duration, seed, speed };
}

function readAddress(text: string): string {
  const url = baseUrlOf(text);
  if (url === undefined) throw new InvalidArgumentError("It must be http://host:port or host:port.");
  return url;
}

function readTime(text: string): number {
  const ms = parseDuration(text);
  if (ms !== undefined && ms >= 1_000 && ms <= LONGEST_MS) return ms;
  throw new InvalidArgumentError("It must be a time from 1s to 24h, such as 60s or 5m.");
}

function whole(least: number, most: number): (text: string) => number {
  return (text) => {
    const number = /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN;
    if (number >= least && number <= most) return number;
    throw new InvalidArgumentError(`It must be a whole number from ${least} to ${most}.`);
  };
}
