import { pino } from "pino";
import { expect, test } from "vitest";
import { escapingLines } from "../../src/cli/log.ts";
import type { Server } from "../../src/server.ts";
import { migrate } from "../../src/storage/migrations.ts";
import { administer } from "../support/cluster.ts";
import { tourContract } from "../support/contract-tour.ts";
import { openOwnedDatabase } from "../support/owned-database.ts";
import { startReplica } from "../support/service.ts";
import { until } from "../support/until.ts";

interface Scene extends AsyncDisposable {
  readonly server: Server;
  readonly role: string;
  readonly name: string;
  readonly log: readonly string[];
  /** Statements of a superuser, on another database. */
  administer(...statements: string[]): Promise<void>;
  /** Statements of a superuser, on the database. */
  within(...statements: string[]): Promise<void>;
  /** Ends the sessions of the service. */
  endSessions(): Promise<void>;
  /** The first lines of `/readyz`. */
  readyz(): Promise<{ readonly status: number; readonly text: string }>;
  /** Waits for this status. @returns the text */
  untilStatus(status: number, text: string): Promise<string>;
}

/** A replica whose role owns the database, without other privileges. */
async function openScene(): Promise<Scene> {
  await using undo = new AsyncDisposableStack();
  const database = undo.use(await openOwnedDatabase());
  await migrate(database.url);
  const log: string[] = [];
  const server = undo.use(
    await startReplica(database.url, {
      log: pino({ level: "info" }, escapingLines({ write: (line: string) => void log.push(line) })),
    }),
  );
  const name = new URL(database.url).pathname.slice(1);
  const elsewhere = new URL(database.adminUrl);
  elsewhere.pathname = "/postgres";
  const readyz = async () => {
    const response = await fetch(`http://${server.addresses.http}/readyz`);
    return { status: response.status, text: await response.text() };
  };
  const everything = undo.move();
  return {
    server,
    role: database.role,
    name,
    log,
    administer: (...statements) => administer(elsewhere.href, ...statements),
    within: (...statements) => administer(database.adminUrl, ...statements),
    endSessions: () =>
      administer(elsewhere.href, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${name}'`),
    readyz,
    untilStatus: async (status, text) => {
      const page = await until(`/readyz is ${status} with ${text}`, async () => {
        const found = await readyz();
        return found.status === status && found.text.includes(text) ? found : undefined;
      });
      return page.text;
    },
    [Symbol.asyncDispose]: () => everything.disposeAsync(),
  };
}

test("a database that becomes read-only is named, and writable again it serves again", async () => {
  await using scene = await openScene();
  await scene.administer(`ALTER DATABASE ${scene.name} SET default_transaction_read_only = on`);
  await scene.endSessions();
  await scene.untilStatus(503, "cannot write to the database: it is read-only (SQLSTATE 25006)");
  expect(scene.log.join("")).toMatch(/"event":"database.read_only","sqlstate":"25006"/);
  expect(scene.log.join("")).toMatch(/"event":"replica.cut_off".*"code":"25006"/);
  await scene.administer(`ALTER DATABASE ${scene.name} RESET default_transaction_read_only`);
  await scene.untilStatus(200, "ready");
  await tourContract(scene.server.addresses);
});

test("a role without free connections is named, and serves again when it has some", async () => {
  await using scene = await openScene();
  await scene.administer(`ALTER ROLE ${scene.role} CONNECTION LIMIT 0`);
  await scene.endSessions();
  await scene.untilStatus(503, "the database is away: it has no free connection (SQLSTATE 53300)");
  expect(scene.log.join("")).toMatch(/"event":"database.connections_exhausted","sqlstate":"53300"/);
  expect(scene.log.join("")).toMatch(/"event":"database.unavailable".*"code":"53300"/);
  await scene.administer(`ALTER ROLE ${scene.role} CONNECTION LIMIT -1`);
  await scene.untilStatus(200, "ready");
  await tourContract(scene.server.addresses);
});

test("a role with fewer connections than the service uses is named, and the replica stays ready", async () => {
  await using scene = await openScene();
  await scene.administer(`ALTER ROLE ${scene.role} CONNECTION LIMIT 2`);
  await scene.endSessions();
  const text = "the database: it has no free connection (SQLSTATE 53300)";
  await until("it is named, and the replica is ready", async () => {
    // The pool of these calls gets no connection.
    const listing = fetch(`http://${scene.server.addresses.http}/harborforge.agents.v1.UserService/ListUsers`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: "{}",
    });
    const found = await scene.readyz();
    await listing;
    return found.status === 200 && found.text.includes(text);
  });
});

test("a replica whose reads keep failing is not ready", async () => {
  await using scene = await openScene();
  await scene.within(`REVOKE SELECT ON agent_states FROM ${scene.role}`);
  await scene.untilStatus(503, "the database is away: it denies permission (SQLSTATE 42501)");
  await scene.within(`GRANT SELECT ON agent_states TO ${scene.role}`);
  await scene.untilStatus(200, "ready");
});

test("a full disk that only some writes meet is named, and does not make the replica come and go", async () => {
  await using scene = await openScene();
  await scene.within(
    `CREATE FUNCTION run_full() RETURNS trigger LANGUAGE plpgsql AS $$
     BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$`,
    "CREATE TRIGGER run_full BEFORE INSERT ON users FOR EACH STATEMENT EXECUTE FUNCTION run_full()",
  );
  const pages: number[] = [];
  const create = () =>
    fetch(`http://${scene.server.addresses.http}/harborforge.agents.v1.UserService/CreateUser`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ username: "ada" }),
    });
  const creating = until("the replica is not ready", async () => {
    expect((await create()).status).toBe(503);
    return pages.includes(503);
  });
  const watching = until("the replica is not ready", async () => {
    pages.push((await scene.readyz()).status);
    return pages.includes(503);
  });
  await Promise.all([creating, watching]);
  expect((await scene.readyz()).text).toContain("the database fails changes: its disk is full (SQLSTATE 53100)");
  expect(scene.log.join("")).toMatch(/"event":"database.disk_full","sqlstate":"53100"/);
  await scene.within("DROP FUNCTION run_full CASCADE");
  await until("the replica is ready again", async () => {
    pages.push((await scene.readyz()).status);
    return pages.at(-1) === 200;
  });
  // Once not ready, once ready again: other writes and reads succeeded all the time.
  expect(pages.filter((status, place) => status !== pages[place - 1])).toEqual([200, 503, 200]);
});
