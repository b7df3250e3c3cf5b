import { once } from "node:events";
import { chmod, chown, lstat, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { Client } from "pg";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import {
  type ClusterOwner,
  copyInstallation,
  type Installation,
  startClusterOwner,
  thisInstallation,
} from "../../../test/support/cluster-owner-process.ts";
import { execFile, spawn, temporaryFolder } from "../../../test/support/owned-process.ts";
import { PATIENCE } from "../../../test/support/until.ts";
import { livingPostmaster, stopPostmaster } from "../src/postmaster.ts";
import { isAlive, isPostmaster } from "../src/postmaster-file.ts";

const isRoot = process.getuid?.() === 0;
const nobody = { uid: 65_534, gid: 65_534 };

let shared: string;
/**
 * The account of the tests of the ordinary user: the account that runs the tests, or, if that is root,
 * `nobody`.
 */
let ordinary: Installation;

beforeAll(async () => {
  shared = await temporaryFolder("embedded");
  await chmod(shared, 0o755);
  ordinary = isRoot ? { ...(await copyInstallation(join(shared, "installation"))), user: nobody } : thisInstallation;
});

afterAll(async () => {
  await rm(shared, { recursive: true, force: true });
});

/** A folder for a test, and owners in it; at its end no process and no file is left. */
async function scene(installation: Installation, mode = 0o755) {
  const path = await mkdtemp(join(shared, "scene-"));
  if (installation.user) await chown(path, installation.user.uid, installation.user.gid);
  await chmod(path, mode);
  const dataDir = join(path, "data");
  const cluster = join(dataDir, "postgresql");
  const owners: ClusterOwner[] = [];
  return {
    path,
    dataDir,
    cluster,
    start(): ClusterOwner {
      const owner = startClusterOwner(installation, dataDir);
      owners.push(owner);
      return owner;
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(owners.map((owner) => owner.kill()));
      const left = await livingPostmaster(cluster).catch(() => undefined);
      if (left) await stopPostmaster(cluster, left);
      await rm(path, { recursive: true, force: true });
    },
  };
}

async function query(connectionString: string, sql: string): Promise<unknown[][]> {
  const client = new Client({ connectionString });
  await client.connect();
  try {
    return (await client.query({ text: sql, rowMode: "array" })).rows;
  } finally {
    await client.end();
  }
}

/** Every file below a folder with its identity and state, to show that none was changed. */
async function fingerprint(folder: string): Promise<string[]> {
  const names = await readdir(folder, { recursive: true });
  return await Promise.all(
    names.sort().map(async (name) => {
      const found = await lstat(join(folder, name));
      return `${name} ${found.mode} ${found.uid} ${found.size} ${found.mtimeMs}`;
    }),
  );
}

/** Not by the number alone: a process whose parent was killed may wait to be collected long after it ended. */
async function gone(cluster: string, pid: number): Promise<void> {
  const file = { pid, port: undefined, status: "" };
  await vi.waitFor(async () => expect(await isPostmaster(cluster, file)).toBe(false), {
    timeout: 15_000,
    interval: 20,
  });
}

const users: [string, () => Installation][] = [["an ordinary user", () => ordinary]];
if (isRoot) users.push(["root", () => thisInstallation]);

describe.concurrent.each(users)("started by %s", (_, installation) => {
  test("keeps the data over a restart, and leaves no process in between", async () => {
    await using here = await scene(installation());
    const first = here.start();
    const { connectionString, version, adopted, pid } = await first.says("serving");
    expect(version).toMatch(/^18\./);
    expect(adopted).toBe(false);
    await query(connectionString, "CREATE TABLE kept AS SELECT 42 AS answer");
    expect((await stat(here.cluster)).mode & 0o777).toBe(0o700);
    expect((await stat(join(here.dataDir, "password"))).mode & 0o777).toBe(0o600);
    await first.stop();
    await first.says("stopped");
    // It has ended; its parent, which has other things to do, collects it a moment later.
    await vi.waitFor(() => expect(isAlive(pid)).toBe(false), PATIENCE);
    expect(await readdir(here.dataDir)).not.toContainEqual(expect.stringMatching(/^unfinished-/));

    const second = here.start();
    const again = await second.says("serving");
    expect(again.adopted).toBe(false);
    expect(await query(again.connectionString, "SELECT answer FROM kept")).toEqual([[42]]);
    await second.stop();
  });

  test("rejects a connection without the password", async () => {
    await using here = await scene(installation());
    const { connectionString } = await here.start().says("serving");
    const wrong = new URL(connectionString);
    wrong.password = "wrong";
    await expect(query(wrong.href, "SELECT 1")).rejects.toMatchObject({ code: "28P01" });
    expect(
      await query(connectionString, "SELECT DISTINCT auth_method FROM pg_hba_file_rules WHERE error IS NULL"),
    ).toEqual([["scram-sha-256"]]);
    expect(
      await query(
        connectionString,
        `SELECT current_setting('listen_addresses'), current_setting('unix_socket_directories'),
                current_setting('data_checksums'), current_setting('TimeZone'), current_setting('server_encoding'), datlocale
           FROM pg_database WHERE datname = current_database()`,
      ),
    ).toEqual([["127.0.0.1", "", "on", "UTC", "UTF8", "C.UTF-8"]]);
  });

  test("adopts the server of a killed owner, and stops it in the end", async () => {
    await using here = await scene(installation());
    const first = here.start();
    const before = await first.says("serving");
    await query(before.connectionString, "CREATE TABLE kept AS SELECT 42 AS answer");
    await first.kill();
    expect(isAlive(before.pid)).toBe(true);

    const second = here.start();
    const after = await second.says("serving");
    expect(after).toMatchObject({ adopted: true, pid: before.pid, connectionString: before.connectionString });
    expect(await query(after.connectionString, "SELECT answer FROM kept")).toEqual([[42]]);
    await second.stop();
    await second.says("stopped");
    await gone(here.cluster, before.pid);
  });

  test("recovers a server that was killed with its owner, also if another process has its process id now", async () => {
    await using here = await scene(installation());
    const first = here.start();
    const before = await first.says("serving");
    await query(before.connectionString, "CREATE TABLE kept AS SELECT 42 AS answer");
    await first.kill();
    process.kill(before.pid, "SIGKILL");
    await gone(here.cluster, before.pid);

    const { uid, gid } = await stat(here.cluster);
    const stranger = spawn("sleep", ["60"], { ...(isRoot && { uid, gid }), stdio: "ignore" });
    try {
      await once(stranger, "spawn");
      const file = join(here.cluster, "postmaster.pid");
      const [, ...rest] = (await readFile(file, "utf8")).split("\n");
      await writeFile(file, [`${stranger.pid}`, ...rest].join("\n"));

      const second = here.start();
      const after = await second.says("serving");
      expect(after.adopted).toBe(false);
      expect(await query(after.connectionString, "SELECT answer FROM kept")).toEqual([[42]]);
      await second.stop();
      expect(stranger.exitCode).toBe(null);
    } finally {
      stranger.kill();
    }
  });

  test("of owners that start at the same moment on a new folder exactly one wins", async () => {
    await using here = await scene(installation());
    const owners = [here.start(), here.start(), here.start()];
    const outcomes = await Promise.all(
      owners.map(async (owner) => {
        try {
          return { owner, serving: await owner.says("serving") };
        } catch (error) {
          return { owner, complaint: String(error) };
        }
      }),
    );
    const winners = outcomes.filter((outcome) => outcome.serving);
    expect(winners).toHaveLength(1);
    const [winner] = winners;
    for (const { complaint } of outcomes.filter((outcome) => !outcome.serving)) {
      expect(complaint).toContain("IN_USE");
      expect(complaint).toContain(`in use by another instance (process ${winner?.owner.pid})`);
    }
    // The losers had no effect.
    expect(await query(winner?.serving?.connectionString ?? "", "SELECT 1")).toEqual([[1]]);

    const late = here.start();
    expect(await late.says("refused")).toMatchObject({ reason: "IN_USE" });
    await winner?.owner.stop();
    await here.start().says("serving");
  });

  test("starts again after an owner was killed while it created the cluster", async () => {
    await using here = await scene(installation());
    const first = here.start();
    const unfinished = async () => (await readdir(here.dataDir)).filter((name) => name.startsWith("unfinished-"));
    await vi.waitFor(
      async () => {
        const [name] = await unfinished();
        await stat(join(here.dataDir, `${name}`, "postgresql", "global"));
      },
      { timeout: 20_000, interval: 1 },
    );
    await first.kill();
    expect(await readdir(here.dataDir)).not.toContain("postgresql");
    const left = await unfinished();
    expect(left).toHaveLength(1);

    const second = here.start();
    expect(await second.says("serving")).toMatchObject({ adopted: false });
    await second.stop();
    // If the initdb of the first outlived it, the folder was left to it until it ended.
    const third = here.start();
    await third.says("serving");
    expect(await unfinished()).toEqual([]);
  });

  test("leaves nothing behind when a start is aborted", async () => {
    await using here = await scene(installation());
    const first = here.start();
    await vi.waitFor(async () => expect(await readdir(here.dataDir)).toContain("lock"), {
      timeout: 20_000,
      interval: 1,
    });
    await first.stop();
    // Early enough it is given up, too late it is stopped: either way it is over.
    await first.says("aborted");
    expect((await readdir(here.dataDir)).filter((name) => name.startsWith("unfinished-"))).toEqual([]);
    expect(await livingPostmaster(here.cluster)).toBeUndefined();
    await here.start().says("serving");
  });

  test("reports a server that ends by itself, and can start it again", async () => {
    await using here = await scene(installation());
    const first = here.start();
    const { pid } = await first.says("serving");
    process.kill(pid, "SIGKILL");
    await first.says("ended");
    await first.stop();
    await first.says("stopped");
    await here.start().says("serving");
  });
});

describe.concurrent("rejects a folder of other programs, and does not change it", () => {
  const cases: [string, string, string, (dataDir: string) => Promise<void>][] = [
    [
      "something else in it",
      "FOREIGN_FOLDER",
      "is not empty and has no data of this service",
      async (dataDir) => await writeFile(join(dataDir, "password"), "somebody's own"),
    ],
    [
      "a cluster of another major version",
      "WRONG_VERSION",
      "PostgreSQL 17",
      async (dataDir) => {
        await mkdir(join(dataDir, "postgresql"));
        await writeFile(join(dataDir, "postgresql", "PG_VERSION"), "17\n");
      },
    ],
    [
      "half a cluster",
      "INCOMPLETE_CLUSTER",
      "global/pg_control is missing",
      async (dataDir) => {
        await mkdir(join(dataDir, "postgresql"));
        await writeFile(join(dataDir, "postgresql", "PG_VERSION"), "18\n");
      },
    ],
    [
      "a cluster of PostgreSQL's own",
      "WRONG_VERSION",
      "is itself a PostgreSQL 15 cluster",
      async (dataDir) => await writeFile(join(dataDir, "PG_VERSION"), "15\n"),
    ],
  ];
  test.each(cases)("%s", async (_, reason, words, fill) => {
    await using here = await scene(thisInstallation);
    await mkdir(here.dataDir);
    await fill(here.dataDir);
    const before = await fingerprint(here.path);
    const refused = await here.start().says("refused");
    expect(refused.reason).toBe(reason);
    expect(refused.message).toContain(words);
    expect(refused.message).not.toContain("\n");
    expect(await fingerprint(here.path)).toEqual(before);
  });

  test("a folder that is a file", async () => {
    await using here = await scene(thisInstallation);
    await writeFile(here.dataDir, "text");
    expect(await here.start().says("refused")).toMatchObject({ reason: "FOREIGN_FOLDER" });
  });

  test("a folder that cannot be written", async () => {
    await using here = await scene(ordinary);
    await chmod(here.path, 0o555);
    const refused = await here.start().says("refused");
    expect(refused).toMatchObject({ reason: "NO_PERMISSION" });
    expect(refused.message).toContain(here.dataDir);
    await chmod(here.path, 0o755);
    await mkdir(here.dataDir, { mode: 0o555 });
    if (ordinary.user) await chown(here.dataDir, ordinary.user.uid, ordinary.user.gid);
    expect(await here.start().says("refused")).toMatchObject({ reason: "NO_PERMISSION" });
  });

  test("a lost password", async () => {
    await using here = await scene(ordinary);
    const first = here.start();
    await first.says("serving");
    await first.stop();
    await writeFile(join(here.dataDir, "password"), "wrong\n");
    expect(await here.start().says("refused")).toMatchObject({ reason: "PASSWORD_LOST" });
    expect(await livingPostmaster(here.cluster)).toBeUndefined();
    await rm(join(here.dataDir, "password"));
    expect(await here.start().says("refused")).toMatchObject({ reason: "PASSWORD_LOST" });
  });
});

describe.runIf(isRoot)("started by root alone", { concurrent: true }, () => {
  test("runs PostgreSQL as another user, who owns only the cluster", async () => {
    await using here = await scene(thisInstallation);
    const { pid } = await here.start().says("serving");
    const server = await stat(`/proc/${pid}`);
    expect(server.uid).not.toBe(0);
    expect((await stat(here.cluster)).uid).toBe(server.uid);
    for (const name of (await readdir(here.dataDir)).filter((one) => one !== "postgresql")) {
      expect(await stat(join(here.dataDir, name))).toMatchObject({ uid: 0 });
    }
  });

  test("copies the programs once if only root may enter the checkout", async () => {
    await using here = await scene(thisInstallation);
    const closed = await mkdtemp(join(shared, "closed-"));
    const installation = await copyInstallation(join(closed, "checkout"));
    const first = startClusterOwner(installation, here.dataDir);
    const { pid } = await first.says("serving");
    expect((await readFile(`/proc/${pid}/cmdline`, "utf8")).startsWith(join(here.dataDir, "software"))).toBe(true);
    await first.stop();
    const copied = await fingerprint(join(here.dataDir, "software"));
    const second = startClusterOwner(installation, here.dataDir);
    await second.says("serving");
    await second.stop();
    expect(await fingerprint(join(here.dataDir, "software"))).toEqual(copied);
    await rm(closed, { recursive: true });
  });

  test("serves a data folder below one that only root may enter, and stops, adopts and recovers its server", async () => {
    await using here = await scene(thisInstallation, 0o700);
    const first = here.start();
    const before = await first.says("serving");
    await query(before.connectionString, "CREATE TABLE kept AS SELECT 42 AS answer");
    await first.kill();
    const second = here.start();
    expect(await second.says("serving")).toMatchObject({ adopted: true, pid: before.pid });
    await second.kill();
    process.kill(before.pid, "SIGKILL");
    await gone(here.cluster, before.pid);
    const third = here.start();
    const after = await third.says("serving");
    expect(after.adopted).toBe(false);
    expect(await query(after.connectionString, "SELECT answer FROM kept")).toEqual([[42]]);
    await third.stop();
    await third.says("stopped");
  });

  test("rejects a cluster that belongs to root, and says what to do", async () => {
    await using here = await scene(thisInstallation);
    const first = here.start();
    await first.says("serving");
    await first.stop();
    await promisify(execFile)("chown", ["-R", "0:0", here.cluster]);
    expect(await here.start().says("refused")).toMatchObject({ reason: "NO_PERMISSION" });
  });
});
