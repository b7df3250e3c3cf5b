import { CommanderError } from "commander";
import { readDemoOptions } from "./demo/options.ts";
import { createOutput } from "./demo/output.ts";
import { DemoError, runDemo } from "./demo/run.ts";

/** npm passes on a Ctrl-C that the terminal has already given to everybody: what comes so soon is the same one. */
const SAME_SIGNAL_MS = 1_000;
const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** Exit codes: 0 it ended as it should, also by Ctrl-C; 1 it cannot go on; 2 the command line is wrong. */
async function main(): Promise<number> {
  const stopping = new AbortController();
  const hurrying = new AbortController();
  let stoppedAt = Number.NEGATIVE_INFINITY;
  const onSignal = (): void => {
    if (!stopping.signal.aborted) stoppedAt = performance.now();
    else if (performance.now() - stoppedAt > SAME_SIGNAL_MS) hurrying.abort();
    stopping.abort();
  };
  // Who read the lines has gone: there is nobody left to show anything to.
  process.stdout.on("error", () => stopping.abort());
  for (const signal of SIGNALS) process.on(signal, onSignal);
  try {
    const options = readDemoOptions(process.argv.slice(2), process.env);
    const output = createOutput(process.stdout, process.env);
    await runDemo({ options, output, stop: stopping.signal, hurry: hurrying.signal });
    return 0;
  } catch (error) {
    // Commander has already said what is wrong, or has shown its help.
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    process.stderr.write(error instanceof DemoError ? `${error.message}\n` : `The demo failed: ${String(error)}\n`);
    return 1;
  } finally {
    for (const signal of SIGNALS) process.off(signal, onSignal);
  }
}

process.exitCode = await main();
