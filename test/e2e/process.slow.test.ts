import { existsSync } from "node:fs";
import { mkdir, readdir } from "node:fs/promises";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { describe, expect, test, vi } from "vitest";
import { UserService } from "../../gen/harborforge/agents/v1/user_service_pb.ts";
import { createTestDatabase } from "../support/cluster.ts";
import { gone, openStage, type Running, type Serving, says, serves } from "../support/program.ts";
import { grpcClient } from "../support/rpc-clients.ts";
import { PATIENCE } from "../support/until.ts";

function users({ grpc }: Serving) {
  return createClient(UserService, createGrpcTransport({ baseUrl: grpc }));
}

/** A heartbeat stream whose owner ignores the drain of the replica. */
function openStubbornStream({ grpc }: Serving) {
  const client = grpcClient(new URL(grpc).host);
  const stream = client.makeBidiStreamRequest<Buffer, Buffer>(
    "/harborforge.agents.v1.AgentService/Heartbeat",
    (bytes) => bytes,
    (bytes) => bytes,
  );
  stream.on("error", () => undefined);
  const greeted = new Promise<void>((resolve) => stream.once("data", () => resolve()));
  stream.on("data", () => undefined);
  return { greeted, [Symbol.dispose]: () => client.close() };
}

/** Stops the program, and waits until all its processes are gone. */
async function stops(running: Running, signal: NodeJS.Signals): Promise<void> {
  running.kill(signal);
  const { code, signal: killedBy, stderr } = await running.ended;
  expect({ code, killedBy }).toEqual({ code: 0, killedBy: null });
  expect(stderr).toMatch(/"event":"service.stopped"/);
  expect(stderr).not.toMatch(/"level":"(error|fatal)"/);
}

describe("the program", () => {
  test("serves, prints its addresses, and the commands that it suggests work unchanged", {
    timeout: 120_000,
  }, async () => {
    await using stage = await openStage();
    const serving = await stage.serve();
    const lines = serving.stdout.split("\n");
    expect(lines[0]).toBe(`gRPC  ${serving.grpc}`);
    expect(lines[1]).toBe(`HTTP  ${serving.http}`);
    expect(lines[2]).toBe(`Data  ${stage.dataDir}`);
    const suggested = lines.filter((line) => line.startsWith("  npx buf curl "));
    expect(suggested).toHaveLength(3);

    const [create = "", beat = "", watch = ""] = suggested;
    const created = await stage.run("sh", ["-c", create]).ended;
    expect(JSON.parse(created.stdout)).toMatchObject({ agent: { agentId: "ada-1", status: "AGENT_STATUS_IDLE" } });
    const again = await stage.run("sh", ["-c", create]).ended;
    expect(JSON.parse(again.stdout)).toEqual(JSON.parse(created.stdout));
    const beaten = await stage.run("sh", ["-c", beat]).ended;
    expect(JSON.parse(beaten.stdout)).toMatchObject({ results: [{ agentId: "ada-1", status: "AGENT_STATUS_BUSY" }] });
    const watching = stage.run("sh", ["-c", watch], { group: true });
    await says(watching, /"status": "AGENT_STATUS_BUSY"[\s\S]*"snapshotComplete": true/);
    watching.killGroup("SIGINT");
    await watching.ended;

    const postmaster = await stage.postmaster();
    await stops(serving, "SIGINT");
    await gone(stage.dataDir, postmaster);
    // The programs are copied if the checkout is in a folder that only its owner may enter.
    const left = (await readdir(stage.dataDir)).filter((name) => name !== "software");
    expect(left).toEqual(["lock", "password", "postgresql", "start.log"]);
  });

  test("keeps its data over a restart", async () => {
    await using stage = await openStage();
    const first = await stage.serve();
    await users(first).createUser({ username: "ada" });
    await stops(first, "SIGTERM");
    const second = await stage.serve();
    const { user } = await users(second).getUser({ key: { case: "username", value: "ada" } });
    expect(user?.username).toBe("ada");
    await stops(second, "SIGHUP");
  });

  test("leaves on kill -9 a database that the next start takes over or recovers", async () => {
    await using stage = await openStage();
    const first = await stage.serve();
    await users(first).createUser({ username: "ada" });
    const postmaster = await stage.postmaster();
    first.kill("SIGKILL");
    await first.ended;

    const second = await stage.serve();
    expect(second.stderr).toMatch(/"adopted":true/);
    expect(await stage.postmaster()).toBe(postmaster);
    await users(second).createUser({ username: "bob" });
    second.kill("SIGKILL");
    await second.ended;
    process.kill(postmaster, "SIGKILL");
    await gone(stage.dataDir, postmaster);

    const third = await stage.serve();
    expect(third.stderr).toMatch(/"adopted":false/);
    const { users: known } = await users(third).listUsers({});
    expect(known.map(({ username }) => username)).toEqual(["ada", "bob"]);
    await stops(third, "SIGTERM");
  });

  test("rejects a folder that another instance uses, without effect on that one", async () => {
    await using stage = await openStage();
    const first = await stage.serve();
    const second = await stage.program(["serve"]).ended;
    expect(second).toMatchObject({ code: 1, stdout: "" });
    expect(second.stderr).toBe(
      `The data folder ${stage.dataDir} is in use by another instance (process ${first.pid}). ` +
        "Stop that one, or choose another folder with HARBORFORGE_DATA_DIR.\n",
    );
    await users(first).createUser({ username: "ada" });
    await stops(first, "SIGINT");
  });

  test("stops when it is interrupted during the creation of its cluster, and leaves no incomplete folder", async () => {
    await using stage = await openStage();
    const first = stage.program(["serve"]);
    await says(first, /postgres\.creating/);
    first.kill("SIGINT");
    expect(await first.ended).toMatchObject({ code: 0, signal: null, stdout: "" });
    const left = existsSync(stage.dataDir) ? await readdir(stage.dataDir) : [];
    expect(left.filter((name) => name.startsWith("unfinished-") || name === "postgresql")).toEqual([]);
    await stops(await stage.serve(), "SIGTERM");
  });

  test("treats simultaneous signals as one, and a later one as a request to stop at once", async () => {
    await using stage = await openStage();
    const serving = await stage.serve({ env: { HARBORFORGE_DRAIN_GRACE: "5m" } });
    using stream = openStubbornStream(serving);
    await stream.greeted;
    const postmaster = await stage.postmaster();
    serving.kill("SIGINT");
    serving.kill("SIGTERM");
    await says(serving, /service\.draining/);
    expect(serving.stderr).not.toMatch(/service\.stopping_now/);
    await vi.waitFor(() => {
      if (!/service\.stopping_now/.test(serving.stderr)) serving.kill("SIGINT");
      expect(serving.stderr).toMatch(/service\.stopping_now/);
    }, PATIENCE);
    expect(await serving.ended).toMatchObject({ code: 0, signal: null });
    await gone(stage.dataDir, postmaster);
  });

  test("stops in order by Ctrl-C under npm", { timeout: 120_000 }, async () => {
    await using stage = await openStage();
    // A terminal's Ctrl-C goes to its whole foreground group: npm, its shell and the program.
    const npm = stage.run("npm", ["start"], { group: true });
    await serves(npm);
    const postmaster = await stage.postmaster();
    npm.killGroup("SIGINT");
    const { stderr } = await npm.ended;
    expect(stderr).toMatch(/"event":"service.stopped"[\s\S]*"event":"postgres.stopped"/);
    expect(stderr).not.toMatch(/service\.stopping_now/);
    await gone(stage.dataDir, postmaster);
  });

  test("logs its release, addresses, database, replica and limits at its start, and no secret", async () => {
    await using stage = await openStage();
    await using database = await createTestDatabase();
    const { password } = new URL(database.url);
    const env = { DATABASE_URL: database.url, HARBORFORGE_MAX_CONNECTIONS: "77", HARBORFORGE_LOG_FORMAT: "json" };
    const serving = await stage.serve({ env });
    await says(serving, /"event":"service.started"/);
    const line = serving.stderr.split("\n").find((one) => one.includes('"service.started"')) ?? "";
    const { host, pathname } = new URL(database.url);
    const started: { commit: string } = JSON.parse(line);
    expect(started).toMatchObject({
      level: "info",
      event: "service.started",
      version: expect.stringMatching(/^\d+\.\d+\.\d+/),
      node: process.version,
      grpc: serving.grpc.slice("http://".length),
      http: serving.http.slice("http://".length),
      database: `${host}${pathname}`,
      replica: 1,
      limits: { maxConnections: 77, heartbeatIntervalMs: 10_000, auth: "none", tls: false },
    });
    expect(started.commit).toMatch(/^([0-9a-f]{40}|unknown)$/);
    expect(password).not.toBe("");
    expect(serving.stderr).not.toContain(password);
    const page = await (await fetch(`${serving.http}/metrics`)).text();
    expect(page).toContain(`commit="${started.commit}"`);
  });

  test("continues to serve when its output is closed", async () => {
    await using stage = await openStage();
    const serving = stage.program(["serve", "--log-level", "debug"]);
    serving.closeStdout();
    await says(serving, /"event":"service.started"/);
    const [, http = ""] = /"http":"([^"]+)"/.exec(serving.stderr) ?? [];
    expect((await fetch(`http://${http}/readyz`)).status).toBe(200);
    await stops(serving, "SIGTERM");
  });

  test("ends when its PostgreSQL does", async () => {
    await using stage = await openStage();
    const serving = await stage.serve();
    process.kill(await stage.postmaster(), "SIGKILL");
    const { code, stderr } = await serving.ended;
    expect(code).toBe(1);
    expect(stderr).toMatch(/service\.postgres_ended/);
  });

  test("stops its PostgreSQL also when a defect ends it", async () => {
    await using stage = await openStage();
    const defect = 'process.on("SIGUSR2", () => { throw new Error("a defect"); })';
    const serving = await serves(
      stage.run(process.execPath, ["--import", `data:text/javascript,${defect}`, "src/main.ts", "serve"]),
    );
    const postmaster = await stage.postmaster();
    serving.kill("SIGUSR2");
    const { code, stderr } = await serving.ended;
    expect(code).toBe(1);
    expect(stderr).toMatch(/"level":"fatal".*a defect/);
    await gone(stage.dataDir, postmaster);
  });

  test("migrates its own database automatically", async () => {
    await using stage = await openStage();
    await mkdir(stage.dataDir);
    const migrated = await stage.program(["migrate"]).ended;
    expect(migrated).toMatchObject({ code: 0 });
    expect(migrated.stdout).toMatch(/^The database was migrated: 0001_tables, .*\.\n$/);
    expect(await stage.program(["migrate"]).ended).toMatchObject({
      code: 0,
      stdout: "The database is at the newest schema already.\n",
    });
  });
});
