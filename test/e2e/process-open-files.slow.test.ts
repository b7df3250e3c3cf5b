import type { Socket } from "node:net";
import { expect, test, vi } from "vitest";
import { createTestDatabase } from "../support/cluster.ts";
import { checkout, openStage, type Serving, says, serves } from "../support/program.ts";
import { tcp } from "../support/rpc-raw.ts";
import { PATIENCE } from "../support/until.ts";

/**
 * Keeps all descriptors of the process open from the first SIGUSR2 to the second one, also those that are freed meanwhile: the
 * connections to the database end after a while.
 */
const OPENER = `
  import { closeSync, openSync } from "node:fs";
  const files = [];
  let timer;
  const openAll = () => { try { for (;;) files.push(openSync("/dev/null")); } catch {} };
  process.on("SIGUSR2", () => {
    if (timer === undefined) { openAll(); timer = setInterval(openAll, 10); return; }
    clearInterval(timer);
    for (const file of files.splice(0)) closeSync(file);
  });`;

async function metric(serving: Serving, name: string): Promise<number> {
  const text = await (await fetch(`${serving.http}/metrics`)).text();
  return Number(new RegExp(`^${name} (\\d+)$`, "m").exec(text)?.[1]);
}

/** The program with a limit of open files, on a database of its own. */
async function limited(stage: Awaited<ReturnType<typeof openStage>>, limit: number, databaseUrl: string) {
  const command = `ulimit -n ${limit} && exec "$0" --import "$1" src/main.ts serve`;
  const opener = `data:text/javascript,${encodeURIComponent(OPENER)}`;
  const env = { DATABASE_URL: databaseUrl, HARBORFORGE_CONNECTIONS_PER_SECOND: "10000" };
  return await serves(stage.run("sh", ["-c", command, process.execPath, opener], { cwd: checkout, env }));
}

test("the start warns if the limit of open files is too low, and further connections are refused and counted", async () => {
  await using stage = await openStage();
  await using database = await createTestDatabase();
  const serving = await limited(stage, 300, database.url);
  await says(
    serving,
    /"event":"process.files_limited","openFiles":300,"needed":50128,"maxConnections":50000,"connections":172/,
  );
  const address = new URL(serving.http).host;
  const sockets: Socket[] = [];
  for (let index = 0; index < 200; index += 1) {
    const socket = await tcp(address).catch(() => undefined);
    if (socket !== undefined) sockets.push(socket);
  }
  await says(serving, /"event":"connection.rejected".*"limit":"openFiles"/);
  for (const socket of sockets) socket.destroy();
  // How many depends on the connections that the listener has closed meanwhile, because they sent no request in time.
  await vi.waitFor(
    async () => expect(await metric(serving, "harborforge_connections_refused")).toBeGreaterThan(0),
    PATIENCE,
  );
  expect(serving.stderr).not.toMatch(/files_exhausted/);
});

test("a process without a free descriptor says so, counts it, and serves again when there are some", async () => {
  await using stage = await openStage();
  await using database = await createTestDatabase();
  const serving = await limited(stage, 300, database.url);
  serving.kill("SIGUSR2");
  await says(serving, /"level":"error".*"event":"process.files_exhausted".*EMFILE/);
  await expect(fetch(`${serving.http}/readyz`)).rejects.toThrow();
  serving.kill("SIGUSR2");
  await says(serving, /"event":"process.files_available"/);
  expect((await fetch(`${serving.http}/readyz`)).status).toBe(200);
  expect(await metric(serving, "harborforge_open_files_shortages")).toBeGreaterThan(0);
});
