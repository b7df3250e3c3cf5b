import { PassThrough, Writable } from "node:stream";
import type { Host, StopSignal } from "../../src/cli/host.ts";
import { runProgram } from "../../src/cli/program.ts";

export interface CliResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A command that runs in this process. */
export interface RunningCli {
  readonly stdout: string;
  readonly stderr: string;
  readonly stdin: PassThrough;
  readonly done: Promise<CliResult>;
  signal(name: StopSignal): void;
}

/** Runs a command as the program does, without a terminal; faster than a process of its own. */
export function startCli(args: readonly string[], env: Readonly<Record<string, string>> = {}): RunningCli {
  const said = { stdout: "", stderr: "" };
  const listeners = new Map<StopSignal, Set<() => void>>();
  const stdin = new PassThrough();
  const host: Host = {
    env: { HOME: "/nonexistent", ...env },
    stdin,
    stdout: collector((text) => {
      said.stdout += text;
    }),
    stderr: collector((text) => {
      said.stderr += text;
    }),
    on: (name, listener) => listeners.set(name, (listeners.get(name) ?? new Set()).add(listener)),
    off: (name, listener) => listeners.get(name)?.delete(listener),
  };
  const cli: RunningCli = {
    get stdout() {
      return said.stdout;
    },
    get stderr() {
      return said.stderr;
    },
    stdin,
    done: runProgram(args, host).then((code) => {
      return { code, ...said };
    }),
    signal: (name) => {
      for (const listener of listeners.get(name) ?? []) listener();
    },
  };

  return cli;
}

export function runCli(args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<CliResult> {
  return startCli(args, env).done;
}

function collector(take: (text: string) => void): Writable {
  return new Writable({
    write(chunk, _encoding, done) {
      take(String(chunk));
      done();
    },
  });
}
