import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CREDENTIALS, forClaw, openMint } from "../support/access.ts";
import { createAuthority, LOCAL_NAMES } from "../support/certificates.ts";
import { runCli } from "../support/cli.ts";
import { createTestDatabase } from "../support/cluster.ts";
import { temporaryFolder } from "../support/owned-process.ts";
import { openStage } from "../support/program.ts";
import { unique, useService } from "../support/service.ts";

const service = useService({ access: CREDENTIALS });
let folder: string;

beforeAll(async () => {
  folder = await temporaryFolder("cli-access");
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function file(name: string, text: string): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, text, { mode: 0o600 });
  return path;
}

describe("the commands with a service that requires credentials", () => {
  test("get the token from flags, the environment or a file, and exit with code 6 without one", async () => {
    await using mint = openMint(service().databaseUrl);
    const { secret } = await mint.issue({ role: "admin" });
    const { secret: readOnly } = await mint.issue({ role: "viewer" });
    const address = { HARBORFORGE_ADDRESS: service().addresses.grpc };
    const tokenFile = await file("token", `${secret}\n`);
    for (const [args, env] of [
      [["--token", secret], {}],
      [["--token-file", tokenFile], {}],
      [[], { HARBORFORGE_TOKEN: secret }],
    ] as const) {
      expect(await runCli(["fleet", ...args], { ...address, ...env })).toMatchObject({ code: 0, stderr: "" });
    }
    const nobody = await runCli(["fleet"], address);
    expect(nobody).toMatchObject({ code: 6, stdout: "" });
    expect(nobody.stderr).toMatch(/^error: UNAUTHENTICATED: .+ HARBORFORGE_TOKEN or the profile file\.\n$/);
    const denied = await runCli(["users", "create", unique("user"), "--token", readOnly], address);
    expect(denied).toMatchObject({
      code: 6,
      stdout: "",
      stderr: expect.stringMatching(/^error: PERMISSION_DENIED: .+\n$/),
    });
    for (const command of [["agents", "watch"], ["beat", "bob-1"], ["simulate"]]) {
      expect(await runCli(command, address), command.join(" ")).toMatchObject({ code: 6, stdout: "" });
    }
  });

  test("send heartbeats for an agent with its own token", async () => {
    await using mint = openMint(service().databaseUrl);
    const { secret: admin } = await mint.issue({ role: "admin" });
    const [agentId, claw] = [unique("agent"), unique("claw")];
    const { secret } = await mint.issue(forClaw(claw));
    const env = { HARBORFORGE_ADDRESS: service().addresses.grpc, HARBORFORGE_TOKEN: admin };
    await runCli(["users", "create", unique("user"), "--agent-id", agentId, "--claw", claw], env);
    const beat = await runCli(["beat", agentId, "--status", "busy", "--duration", "1s", "--token", secret], env);
    expect(beat).toMatchObject({ code: 0, stderr: "", stdout: expect.stringContaining(`${agentId} is busy\n`) });
    const refused = await runCli(["beat", agentId], env);
    expect(refused).toMatchObject({ code: 6, stderr: expect.stringMatching(/^error: .*may not call .+\n$/) });
  });

  test("simulate a fleet whose claws use tokens of their own", async () => {
    await using mint = openMint(service().databaseUrl);
    const { secret } = await mint.issue({ role: "admin" });
    const names = unique("sim");
    const claws = ["a", "b"].map((letter) => `${names}-claw-${letter}`);
    const lines = await Promise.all(claws.map(async (claw) => `${claw} ${(await mint.issue(forClaw(claw))).secret}\n`));
    const clawTokens = await file("claw-tokens", lines.join(""));
    const env = { HARBORFORGE_ADDRESS: service().addresses.grpc, HARBORFORGE_TOKEN: secret };
    const args = ["simulate", "--agents", "4", "--claws", "2", "--names", names, "--duration", "3s", "--no-faults"];
    const ended = await runCli([...args, "--processes", "--claw-tokens", clawTokens, "-o", "json"], env);
    expect(ended).toMatchObject({ code: 0, stderr: "" });
    expect(JSON.parse(ended.stdout)).toMatchObject({ causes: { goodbye: 4 } });
    const refused = await runCli(args, env);
    expect(refused).toMatchObject({ code: 6, stderr: expect.stringMatching(/^error: .*may not call .+\n$/) });
  }, 60_000);
});

test("commands verify the service by --ca, and authenticate by --cert and --key", async () => {
  const authority = createAuthority();
  const pair = authority.issue({ names: LOCAL_NAMES });
  const client = authority.issue({ names: { uris: ["spiffe://example.org/service"] }, usage: "client" });
  await using database = await createTestDatabase();
  await using stage = await openStage();
  const ca = await file("ca.pem", authority.cert);
  const serving = await stage.serve({
    env: {
      DATABASE_URL: database.url,
      HARBORFORGE_TLS_CERT_FILE: await file("server.pem", pair.cert),
      HARBORFORGE_TLS_KEY_FILE: await file("server.key", pair.key),
      HARBORFORGE_TLS_CLIENT_CA_FILE: ca,
      HARBORFORGE_TLS_CLIENT_CERT: "required",
    },
  });
  const address = ["--address", serving.grpc];
  const identity = ["--cert", await file("client.pem", client.cert), "--key", await file("client.key", client.key)];
  expect(await runCli(["fleet", ...address, "--ca", ca, ...identity])).toMatchObject({ code: 0, stderr: "" });
  for (const less of [identity, ["--ca", ca]]) {
    const refused = await runCli(["fleet", ...address, ...less]);
    expect(refused, refused.stderr).toMatchObject({ code: 3, stdout: "" });
    expect(refused.stderr).toMatch(/^error: The (TLS connection to|service at) https:.+\n$/);
  }
}, 60_000);
