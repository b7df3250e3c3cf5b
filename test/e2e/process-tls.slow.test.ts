import { mkdir, writeFile } from "node:fs/promises";
import { request } from "node:https";
import { join } from "node:path";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { createServiceClients } from "harborforge-agents-client";
import { describe, expect, test } from "vitest";
import { UserService } from "../../gen/harborforge/agents/v1/user_service_pb.ts";
import { createAuthority, LOCAL_NAMES } from "../support/certificates.ts";
import { createTestDatabase } from "../support/cluster.ts";
import { openStage, type Stage } from "../support/program.ts";

const authority = createAuthority();
const pair = authority.issue({ names: LOCAL_NAMES });
const client = authority.issue({ names: { uris: ["spiffe://example.org/service"] }, usage: "client" });

/** The settings of TLS, with files in the test's folder. */
async function settings(stage: Stage): Promise<Record<string, string>> {
  const folder = join(stage.path, "tls");
  await mkdir(folder);
  const write = async (name: string, text: string): Promise<string> => {
    await writeFile(join(folder, name), text, { mode: 0o600 });
    return join(folder, name);
  };
  return {
    HARBORFORGE_TLS_CERT_FILE: await write("tls.crt", pair.cert),
    HARBORFORGE_TLS_KEY_FILE: await write("tls.key", pair.key),
    HARBORFORGE_TLS_CLIENT_CA_FILE: await write("ca.crt", authority.cert),
    HARBORFORGE_TLS_CLIENT_CERT: "required",
  };
}

describe("the program with TLS", () => {
  test("reports TLS, serves both listeners to clients with a certificate, and stops in order", async () => {
    await using database = await createTestDatabase();
    await using stage = await openStage();
    const serving = await stage.serve({ env: { DATABASE_URL: database.url, ...(await settings(stage)) } });
    expect(serving.stdout).toMatch(
      /^gRPC {2}https:\/\/127\.0\.0\.1:\d+\nHTTP {2}https:\/\/127\.0\.0\.1:\d+\nData {2}.+\n$/,
    );
    for (const baseUrl of [serving.grpc, serving.http]) {
      const nodeOptions = { ca: authority.cert, ...client };
      const users = createClient(UserService, createGrpcTransport({ baseUrl, nodeOptions }));
      expect((await users.listUsers({}, { timeoutMs: 10_000 })).users).toEqual([]);
    }
    const metrics = await new Promise<string>((resolve, reject) => {
      const req = request(`${serving.http}/metrics`, { ca: authority.cert, ...client, agent: false }, (res) => {
        let text = "";
        res.setEncoding("utf8").on("data", (part: string) => {
          text += part;
        });
        res.on("end", () => resolve(text));
      });
      req.on("error", reject).end();
    });
    expect(metrics).toMatch(/^harborforge_tls_certificate_expiry_timestamp_seconds \d{10}/m);
    using clients = createServiceClients({ address: serving.grpc, tls: { ca: authority.cert, ...client } });
    expect((await clients.users.listUsers({})).users).toEqual([]);
    expect(await clients.isAnswered(10_000)).toBe(true);
    using nobody = createServiceClients({ address: serving.grpc, tls: { ca: authority.cert } });
    await expect(nobody.users.listUsers({}, { timeoutMs: 5_000 })).rejects.toThrow();
    serving.kill("SIGTERM");
    expect(await serving.ended).toMatchObject({ code: 0 });
  });

  test("exits with a sentence when a file cannot be used", async () => {
    await using database = await createTestDatabase();
    await using stage = await openStage();
    const env = { DATABASE_URL: database.url, ...(await settings(stage)) };
    const missing = join(stage.path, "missing.crt");
    const { code, stderr } = await stage.program(["serve"], { env: { ...env, HARBORFORGE_TLS_CERT_FILE: missing } })
      .ended;
    expect(code).toBe(1);
    expect(stderr).toBe(
      `The TLS certificate ${missing} cannot be read: there is no such file. Check HARBORFORGE_TLS_CERT_FILE.\n`,
    );
  });
});
