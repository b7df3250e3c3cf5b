import type { ChildProcess } from "node:child_process";
import { resolve } from "node:path";
import { spawn } from "../support/owned-process.ts";
import type { Listeners } from "./attempts.ts";

/** A service in a process of its own, whose memory is its own and whose log is kept. */
export interface FuzzedService extends AsyncDisposable {
  readonly listeners: Listeners;
  readonly pid: number;
  /** All it has logged so far. */
  readonly log: string;
}

const START_MS = 60_000;
const MAIN = resolve(import.meta.dirname, "../../src/main.ts");

/** Starts `serve` on free ports, with limits that admit the fuzzer: it tests the code behind them. */
export async function startFuzzedService(
  databaseUrl: string,
  env: Readonly<Record<string, string>> = {},
): Promise<FuzzedService> {
  const child = spawn(process.execPath, [MAIN, "serve"], {
    env: {
      PATH: process.env.PATH,
      DATABASE_URL: databaseUrl,
      HARBORFORGE_GRPC_ADDRESS: "127.0.0.1:0",
      HARBORFORGE_HTTP_ADDRESS: "127.0.0.1:0",
      HARBORFORGE_CONNECTIONS_PER_SECOND: "1000000",
      HARBORFORGE_REQUESTS_PER_SECOND: "1000000",
      HARBORFORGE_LOG_FORMAT: "json",
      HARBORFORGE_LOG_LEVEL: "trace",
      HARBORFORGE_DRAIN_GRACE: "0s",
      ...env,
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const log: string[] = [];
  child.stderr.setEncoding("utf8").on("data", (text: string) => log.push(text));
  const listeners = await listenersOf(child, log);
  return {
    listeners,
    pid: child.pid ?? 0,
    get log() {
      return log.join("");
    },
    [Symbol.asyncDispose]: async () => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill("SIGKILL");
      await new Promise((done) => child.once("exit", done));
    },
  };
}

function listenersOf(child: ChildProcess, log: readonly string[]): Promise<Listeners> {
  return new Promise((resolveListeners, reject) => {
    const fail = (why: string): void => {
      child.kill("SIGKILL");
      reject(new Error(`the service did not start, ${why}: ${log.join("")}`));
    };
    const timer = setTimeout(() => fail("in time"), START_MS);
    let said = "";
    child.once("exit", (code) => fail(`it ended with ${code}`));
    child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      said += text;
      const [, grpc, http] = /^gRPC {2}http:\/\/(\S+)\nHTTP {2}http:\/\/(\S+)\n/m.exec(said) ?? [];
      if (grpc === undefined || http === undefined) return;
      clearTimeout(timer);
      child.removeAllListeners("exit");
      resolveListeners({ grpc, http });
    });
  });
}
