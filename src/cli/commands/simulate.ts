import { type Command, InvalidArgumentError, Option } from "commander";
import { durationArgument, shareArgument, wholeArgument } from "../arguments.ts";
import { CommandFailure } from "../call-failure.ts";
import { readSecretFile } from "../connection/profile.ts";
import { EXIT_FAILED, EXIT_OK, EXIT_WRONG_SETTING } from "../exit-codes.ts";
import { listenForInterrupts } from "../interrupt.ts";
import { connectedCommand, type Shell } from "../shell.ts";
import { Progress } from "../terminal/progress.ts";

interface Flags {
  readonly agents: number;
  readonly claws: number;
  readonly names: string;
  readonly rateLimit: number;
  readonly emptyAccounts: number;
  readonly duration?: number;
  readonly speed: number;
  readonly seed: number;
  readonly processes?: true;
  readonly clawTokens?: string;
  readonly faults: boolean;
  readonly calendar: boolean;
  readonly cleanUp?: true;
  readonly transitions?: true;
  readonly output: "table" | "json";
}

const LONGEST_MS = 24 * 3_600_000;
/** The limit of a filter. */
const MAX_CLAWS = 1_000;
const MAX_PROCESSES = 50;

export function define(command: Command, shell: Shell): void {
  command
    .description(
      "simulate a fleet that works, hits rate limits and loses claws, until Ctrl-C; the first run creates users and agents",
    )
    .optionsGroup("The fleet:")
    .option("--agents <number>", "agents on all claws together, 1 to 1000000", wholeArgument(1, 1_000_000), 100)
    .option("--claws <number>", `claws, 1 to ${MAX_CLAWS}`, wholeArgument(1, MAX_CLAWS), 5)
    .addOption(new Option("--names <prefix>", "the prefix of all names").default("sim").argParser(readNames))
    .option("--processes", `run each claw as a process of its own, at most ${MAX_PROCESSES}`)
    .option(
      "--claw-tokens <path>",
      "if the service requires credentials: a file with a line for each claw, its name and a token of the role agent",
    )
    .option("--speed <factor>", "the speed of the simulation, 1 to 20 times real time", wholeArgument(1, 20), 1)
    .option("--seed <number>", "makes the agents' actions reproducible", wholeArgument(0, 2 ** 32 - 1), 1)
    .optionsGroup("Faults:")
    .option("--rate-limit <share>", "the share of work that ends at a rate limit, 0 to 1", shareArgument, 0.05)
    .option("--empty-accounts <number>", "agents whose account runs empty once", wholeArgument(0, 1_000_000), 0)
    .option("--no-faults", "do not kill claws")
    .option("--no-calendar", "do not claim agents")
    .optionsGroup("Output:")
    .option("--duration <time>", "stop after a duration such as 60s or 5m", durationArgument(1_000, LONGEST_MS))
    .option("--transitions", "print a line for each transition (if there is no terminal)")
    .option("--clean-up", "delete its users and agents at the end")
    .addOption(
      new Option("-o, --output <format>", "a summary for people, or only a summary as JSON")
        .choices(["table", "json"])
        .default("table"),
    );
  const examples = [
    "harborforge-agents simulate --agents 10000 --claws 20 --rate-limit 0.05 --duration 5m",
    "harborforge-agents simulate --agents 30 --claws 3 --processes --speed 5",
  ];
  connectedCommand<Flags>(shell, command, examples, async ({ host, caller, connection, out, err }, flags) => {
    const { agents, claws, duration: durationMs, processes, output: format } = flags;
    if (claws > agents) throw wrong("--claws must not exceed --agents: each claw needs an agent.");
    if (processes === true && claws > MAX_PROCESSES) {
      throw wrong(`--processes allows at most ${MAX_PROCESSES} --claws.`);
    }
    const [{ runSimulation }, { createOutput }, { targetOf }] = await Promise.all([
      import("../../simulate/simulation.ts"),
      import("../../simulate/simulation-output.ts"),
      import("../connection/service-context.ts"),
    ]);
    using interrupt = listenForInterrupts(host);
    out.onClosed(interrupt.stop);
    const progress = new Progress(err);
    const view = await runSimulation({
      options: {
        names: flags.names,
        claws,
        agents,
        durationMs,
        seed: flags.seed,
        speed: flags.speed,
        rateLimitShare: flags.rateLimit,
        emptyAccounts: flags.emptyAccounts,
        forked: processes === true,
        faults: flags.faults,
        calendar: flags.calendar,
        cleanUp: flags.cleanUp === true,
      },
      caller,
      target: targetOf(connection),
      clawTokens: flags.clawTokens === undefined ? new Map() : readClawTokens(flags.clawTokens),
      output: createOutput(out, { json: format === "json", transitions: flags.transitions === true }),
      onProgress: (what, done, of) => (done === of ? progress.end() : progress.show(what, done, of)),
      stop: interrupt.stopping,
      hurry: interrupt.hurrying,
    }).finally(() => progress.end());
    return view === undefined || view.lostAlive === 0 ? EXIT_OK : EXIT_FAILED;
  });
}

/** @throws CommandFailure */
function readClawTokens(path: string): ReadonlyMap<string, string> {
  const lines = readSecretFile(path, "token").split("\n");
  const tokens = new Map<string, string>();
  for (const [index, line] of lines.entries()) {
    const [claw, token, ...rest] = line.trim().split(/\s+/);
    if (claw === undefined || claw === "") continue;
    if (token === undefined || rest.length > 0)
      throw wrong(`Line ${index + 1} of ${path} must be a claw and its token.`);
    tokens.set(claw, token);
  }
  return tokens;
}

function readNames(text: string): string {
  if (/^[\p{L}\p{N}._-]{1,64}$/u.test(text)) return text;
  throw new InvalidArgumentError("It must be 1 to 64 letters, digits, dots, hyphens or underscores.");
}

function wrong(sentence: string): CommandFailure {
  return new CommandFailure(sentence, EXIT_WRONG_SETTING);
}
