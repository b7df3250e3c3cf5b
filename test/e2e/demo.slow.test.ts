import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from "vitest";
import packageJson from "../../package.json" with { type: "json" };
import { createTestDatabase, type TestDatabase } from "../support/cluster.ts";
import { spawn } from "../support/owned-process.ts";
import { PATIENCE } from "../support/until.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));

/** A program of ours with its output so far. */
class Program {
  readonly child: ChildProcess;
  readonly ended: Promise<unknown>;
  output = "";
  errors = "";

  constructor(args: readonly string[], env: Readonly<Record<string, string>> = {}) {
    const child = spawn(process.execPath, args, {
      cwd: root,
      env: { ...process.env, HARBORFORGE_ADDRESS: "", ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.child = child;
    this.ended = once(child, "close");
    child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      this.output += text;
    });
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.errors += text;
    });
  }

  async exitCode(): Promise<number | null> {
    await this.ended;
    return this.child.exitCode;
  }

  async kill(): Promise<void> {
    this.child.kill("SIGKILL");
    await this.ended;
  }
}

let database: TestDatabase;
let server: Program;
let address: string;

beforeAll(async () => {
  database = await createTestDatabase();
  server = new Program(["src/main.ts", "serve"], {
    DATABASE_URL: database.url,
    HARBORFORGE_GRPC_ADDRESS: "127.0.0.1:0",
    HARBORFORGE_HTTP_ADDRESS: "127.0.0.1:0",
    HARBORFORGE_HEARTBEAT_INTERVAL: "500ms",
    HARBORFORGE_LOG_LEVEL: "warn",
  });
  address = await vi.waitUntil(() => /^gRPC {2}(\S+)$/m.exec(server.output)?.[1], { timeout: 20_000 });
});

afterAll(async () => {
  await server?.kill();
  await database?.drop();
});

/** As `npm run demo` runs it. */
const DEMO = packageJson.scripts.demo.replace(/^node /, "").split(" ");

function demo(...args: string[]): Program {
  const program = new Program([...DEMO, ...args]);
  onTestFinished(() => program.kill());
  return program;
}

/** The processes of the claws, by the numbers that the demo prints. */
function clawsOf({ output }: Program): number[] {
  return [...output.matchAll(/^note demo-claw-. starts .*\(process (\d+)\)$/gm)].map(([, pid]) => Number(pid));
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

describe("npm run demo", () => {
  it("shows a fleet at work that is called, exhausted, loses a claw, and recovers", async () => {
    const program = demo("--address", address, "--speed", "10", "--agents", "18");
    const seen = [
      // Called by the calendar and by itself, worked, and was done.
      /demo-claw-\S+ idle -> on_call \[service\]/,
      /demo-claw-\S+ idle -> on_call \[report\]/,
      /demo-claw-\S+ on_call -> busy \[report\]/,
      /demo-claw-\S+ busy -> idle \[report\]/,
      // Rate limits and their recoveries; an empty account, for which the server chooses the time.
      /demo-claw-\S+ busy -> exhausted \[report\] rate limit, for/,
      /demo-claw-\S+ exhausted -> idle \[recovery\]/,
      /demo-claw-a-06 busy -> exhausted \[report\] billing, for (9|10|11) min/,
      // A claw is lost and returns.
      /^note demo-claw-b was killed \(process \d+\) without a goodbye: its leases expire within 2 s$/m,
      /^note demo-claw-b is offline: 6 agents/m,
      /demo-claw-b-\d+ offline -> \S+ \[heartbeat\]/,
      /^note demo-claw-b is back: 6 agents$/m,
    ];
    const missing = () => seen.filter((line) => !line.test(program.output));
    await vi.waitFor(() => expect(missing()).toEqual([]), { timeout: 40_000, interval: 100 });
    program.child.kill("SIGINT");
    expect(await program.exitCode()).toBe(0);

    const { output, errors } = program;
    expect(errors).toBe("");
    expect(output).not.toContain("\u001b");
    expect(output.match(/demo-claw-b-\d+ \S+ -> offline \[lease_expired\]/g)).toHaveLength(6);
    // The other claws never fell silent.
    expect(output).not.toMatch(/demo-claw-[ac]-\d+ \S+ -> offline \[lease_expired\]/);
    expect(output).toMatch(/^Claws killed: 1\. No agent that sent heartbeats lost its lease\.$/m);
    expect(output).toMatch(/^The calendar claimed \d+ agents; \d+ claims were rejected/m);
    expect(clawsOf(program)).toHaveLength(4);
    expect(clawsOf(program).filter(isAlive)).toEqual([]);
  }, 60_000);

  it("ends when its time is over, and reuses the agents of an earlier run", async () => {
    for (const run of ["first", "second"]) {
      const program = demo("--address", address, "--duration", "4s", "--agents", "9");
      expect(await program.exitCode(), run).toBe(0);
      expect(program.errors).toBe("");
      expect(program.output).toMatch(/^summary 0:0\d all idle=0 on_call=0 busy=0 exhausted=0 offline=9$/m);
      expect(clawsOf(program).filter(isAlive)).toEqual([]);
    }
  }, 60_000);

  it("ends by SIGINT with goodbyes", async () => {
    const program = demo("--address", address, "--agents", "6");
    await vi.waitUntil(() => /-> (busy|on_call) /.test(program.output), { timeout: 20_000 });
    program.child.kill("SIGINT");
    // npm passes on a signal that the terminal has already sent.
    program.child.kill("SIGINT");
    expect(await program.exitCode()).toBe(0);
    expect(program.output).toMatch(/^note demo-claw-a sent its goodbyes and stopped$/m);
    expect(program.output).toMatch(/^summary \S+ all idle=0 on_call=0 busy=0 exhausted=0 offline=6$/m);
    expect(clawsOf(program).filter(isAlive)).toEqual([]);
  });

  it("ends its claws with it when it is killed", async () => {
    const program = demo("--address", address, "--agents", "3");
    await vi.waitUntil(() => clawsOf(program).length === 3, { timeout: 20_000 });
    await program.kill();
    await vi.waitUntil(() => !clawsOf(program).some(isAlive), PATIENCE);
  });

  it("reports a missing service in one sentence", async () => {
    const program = demo("--address", "127.0.0.1:1", "--wait", "0s");
    expect(await program.exitCode()).toBe(3);
    expect(program.errors).toMatch(
      /^error: The service at http:\/\/127\.0\.0\.1:1 is unreachable \(.+\)\. Start it with "harborforge-agents serve", .+\n$/,
    );
    expect(program.output).toBe("");
  });

  it("rejects an invalid command line", async () => {
    const program = demo("--duration", "soon");
    expect(await program.exitCode()).toBe(2);
    expect(program.errors).toContain("It must be a duration from 1s to 24h");
  });
});
