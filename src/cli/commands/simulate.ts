import { type Command, Option } from "commander";
import { formatDuration } from "../../config/values.ts";
import { durationArgument, shareArgument, wholeArgument } from "../arguments.ts";
import { CommandFailure } from "../call-failure.ts";
import { readSecretFile } from "../connection/profile.ts";
import type { ServiceContext } from "../connection/service-context.ts";
import { EXIT_FAILED, EXIT_OK, EXIT_WRONG_SETTING } from "../exit-codes.ts";
import { inDetail } from "../help.ts";
import { listenForInterrupts } from "../interrupt.ts";
import { connectedCommand, type Shell } from "../shell.ts";
import { printable } from "../terminal/printable.ts";
import { Progress } from "../terminal/progress.ts";
import { DEFAULT_CLAWS, MAX_CLAWS, namesOption } from "./fleet-names.ts";

interface Flags {
  readonly agents: number;
  readonly claws: number;
  readonly names: string;
  readonly rateLimit: number;
  readonly emptyAccounts: number;
  readonly duration?: number;
  readonly wait: number;
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

const MAX_PROCESSES = 50;

export function define(command: Command, shell: Shell): void {
  command
    .description(
      "simulate a fleet that works, hits rate limits and loses claws, until Ctrl-C; the first run creates users and agents",
    )
    .optionsGroup("The fleet:")
    .option("--agents <number>", "agents on all claws together, 1 to 1000000", wholeArgument(1, 1_000_000), 100)
    .option("--claws <number>", `claws, 1 to ${MAX_CLAWS}`, wholeArgument(1, MAX_CLAWS), DEFAULT_CLAWS)
    .addOption(namesOption())
    .option("--processes", `run each claw as a process of its own, at most ${MAX_PROCESSES}`)
    .option(
      "--claw-tokens <path>",
      "the tokens of the claws (if the service requires credentials): a line for each claw, with its name and a token of the role agent; tokens issue --for-simulate writes the file",
    )
    .addOption(
      inDetail(
        new Option("--speed <factor>", "the speed of the simulation, 1 to 20 times real time")
          .default(1)
          .argParser(wholeArgument(1, 20)),
      ),
    )
    .addOption(
      inDetail(
        new Option("--seed <number>", "makes the agents' actions reproducible")
          .default(1)
          .argParser(wholeArgument(0, 2 ** 32 - 1)),
      ),
    )
    .option("--wait <time>", "how long to wait for a service that is starting", durationArgument(0, 3_600_000), 30_000)
    .optionsGroup("Faults:")
    .option("--rate-limit <share>", "the share of work that ends at a rate limit, 0 to 1", shareArgument, 0.05)
    .addOption(
      inDetail(
        new Option("--empty-accounts <number>", "agents whose account runs empty once")
          .default(0)
          .argParser(wholeArgument(0, 1_000_000)),
      ),
    )
    .option("--no-faults", "do not kill claws")
    .option("--no-calendar", "do not claim agents")
    .optionsGroup("Output:")
    .option("--duration <time>", "stop after a duration such as 60s or 5m", durationArgument(1_000, LONGEST_MS))
    .addOption(inDetail(new Option("--transitions", "print a line for each transition, if there is no terminal")))
    .option("--clean-up", "delete its users and agents at the end")
    .addOption(
      new Option("-o, --output <format>", "a summary for people, or only a summary as JSON")
        .choices(["table", "json"])
        .default("table"),
    );
  const examples = [
    "harborforge-agents simulate --agents 30 --claws 3 --processes",
    "harborforge-agents simulate --agents 10000 --claws 20 --rate-limit 0.05 --duration 5m",
  ];
  connectedCommand<Flags>(shell, command, examples, async (context, flags) => {
    if (flags.claws > flags.agents) throw wrong("--claws must not exceed --agents: each claw needs an agent.");
    if (flags.processes === true && flags.claws > MAX_PROCESSES) {
      throw wrong(`--processes allows at most ${MAX_PROCESSES} --claws.`);
    }
    return await simulate(context, flags);
  });
}

async function simulate({ host, caller, connection, out, err }: ServiceContext, flags: Flags): Promise<number> {
  const [{ runSimulation }, { createOutput }, { targetOf }, { withAdvice }] = await Promise.all([
    import("../../simulate/simulation.ts"),
    import("../../simulate/simulation-output.ts"),
    import("../connection/service-context.ts"),
    import("../../simulate/token-advice.ts"),
  ]);
  const where = connection.addresses.join(", ");
  using interrupt = listenForInterrupts(host);
  out.onClosed(interrupt.stop);
  const progress = new Progress(err);
  const run = runSimulation({
    options: {
      names: flags.names,
      claws: flags.claws,
      agents: flags.agents,
      durationMs: flags.duration,
      seed: flags.seed,
      speed: flags.speed,
      rateLimitShare: flags.rateLimit,
      emptyAccounts: flags.emptyAccounts,
      forked: flags.processes === true,
      faults: flags.faults,
      calendar: flags.calendar,
      cleanUp: flags.cleanUp === true,
    },
    caller,
    target: targetOf(connection),
    clawTokens: flags.clawTokens === undefined ? new Map() : readClawTokens(flags.clawTokens),
    output: createOutput(out, { json: flags.output === "json", transitions: flags.transitions === true }),
    waitMs: flags.wait,
    onWaiting: ({ message }) =>
      err.put(`Waiting up to ${formatDuration(flags.wait)} for the service at ${where} (${printable(message)}).\n`),
    onProgress: (what, done, of) => (done === of ? progress.end() : progress.show(what, done, of)),
    stop: interrupt.stopping,
    hurry: interrupt.hurrying,
  });
  const view = await withAdvice(run, flags, where).finally(() => progress.end());
  return view === undefined || view.lostAlive === 0 ? EXIT_OK : EXIT_FAILED;
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

function wrong(sentence: string): CommandFailure {
  return new CommandFailure(sentence, EXIT_WRONG_SETTING);
}
