import { once } from "node:events";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { describe, expect, test, vi } from "vitest";
import { runCli, startCli } from "../support/cli.ts";
import { unique, useService } from "../support/service.ts";

const service = useService();
const soon = { timeout: 20_000, interval: 20 };
/** Clients begin with an address at random: this many runs begin with each of two, but for one time in 100. */
const RUNS = 8;
/** A port on which nothing listens. */
const DEAD = "127.0.0.1:1";

/** An address that accepts connections and never answers. */
async function openSilent(): Promise<AsyncDisposable & { readonly address: string; readonly connections: number }> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => void sockets.add(socket.on("error", () => undefined)));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port }: Pick<AddressInfo, "port"> = Object(server.address());
  return {
    address: `127.0.0.1:${port}`,
    get connections() {
      return sockets.size;
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
}

const both = (): string => `${DEAD},${service().addresses.grpc}`;

async function newAgent(): Promise<string> {
  const agentId = unique("agent");
  const env = { HARBORFORGE_ADDRESS: service().addresses.grpc };
  await runCli(["users", "create", unique("user"), "--agent-id", agentId, "--claw", "claw-1"], env);
  return agentId;
}

describe("with several addresses, the next one replaces one", () => {
  test("that refuses connections: for reads, changes, and lists of several pages", async () => {
    for (let run = 0; run < RUNS; run += 1) {
      const username = unique("user");
      const env = { HARBORFORGE_ADDRESS: both() };
      const made = await runCli(["users", "create", username, "-o", "json"], env);
      expect(made).toMatchObject({ code: 0, stderr: "" });
      const read = await runCli(["users", "list", "--limit", "1001", "--address", both()]);
      expect(read).toMatchObject({ code: 0, stderr: "", stdout: expect.stringContaining(username) });
    }
  });

  test("that never answers, within the timeout of the call", async () => {
    await using silent = await openSilent();
    const address = `${silent.address},${service().addresses.grpc}`;
    // Until a run has begun with it.
    while (silent.connections === 0) {
      const fleet = await runCli(["fleet", "--timeout", "6s", "--address", address]);
      expect(fleet).toMatchObject({ code: 0, stderr: "" });
    }
  });

  test("for a watch and for the heartbeats of an agent", async () => {
    const agentId = await newAgent();
    for (let run = 0; run < RUNS / 2; run += 1) {
      const watch = startCli(["agents", "watch", "--agent", agentId, "--address", both()]);
      await vi.waitFor(() => expect(watch.stdout).toContain("snapshot of 1 agent "), soon);
      watch.signal("SIGINT");
      expect(await watch.done).toMatchObject({ code: 0, stderr: "" });
    }
    const beat = await runCli(["beat", agentId, "--status", "busy", "--duration", "1s", "--address", both()]);
    expect(beat).toMatchObject({ code: 0, stdout: expect.stringContaining(`${agentId} is busy\n`) });
  });

  test("for a simulation and its claws", async () => {
    const args = ["--agents", "2", "--claws", "2", "--names", unique("sim"), "--duration", "3s", "--no-faults"];
    const simulated = await runCli(["simulate", ...args, "--clean-up", "-o", "json", "--address", both()]);
    expect(simulated).toMatchObject({ code: 0 });
    expect(JSON.parse(simulated.stdout)).toMatchObject({ agents: 2, causes: { goodbye: 2 } });
  });
});

test("if no address works, the error names all of them", async () => {
  for (const command of [["fleet"], ["agents", "watch"]]) {
    const failed = await runCli([...command, "--address", `${DEAD},127.0.0.1:2`]);
    expect(failed).toMatchObject({ code: 3, stdout: "" });
    expect(failed.stderr).toMatch(
      /^error: The service at http:\/\/127\.0\.0\.1:1, http:\/\/127\.0\.0\.1:2 is unreachable \(.+\)\. .+\n$/,
    );
  }
});
