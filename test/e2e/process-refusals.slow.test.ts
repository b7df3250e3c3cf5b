import { chmod, mkdir, readdir, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { expect, test } from "vitest";
import { SETTINGS } from "../../src/config/settings.ts";
import { administer, createEmptyDatabase, createTestDatabase } from "../support/cluster.ts";
import { startOldPostgres } from "../support/old-postgres.ts";
import { openOwnedDatabase } from "../support/owned-database.ts";
import { openStage, type Running, type Stage } from "../support/program.ts";

/** The program ends with this code, and its whole output is this one sentence, on standard error. */
async function isRefused(running: Running, code: number, sentence: RegExp): Promise<void> {
  const ending = await running.ended;
  expect(ending).toMatchObject({ signal: null, stdout: "" });
  expect(ending.stderr).toMatch(sentence);
  expect(ending.stderr.trimEnd().split("\n"), ending.stderr).toHaveLength(1);
  expect(ending.code).toBe(code);
}

function serveOn(stage: Stage, url: string, env: Record<string, string> = {}): Running {
  return stage.program(["serve"], { env: { DATABASE_URL: url, ...env } });
}

test("serve --help-all prints every setting with its range and its default, --version the version", async () => {
  await using stage = await openStage();
  const [ofServe, version] = await Promise.all(
    [["serve", "--help-all"], ["--version"]].map((args) => stage.program(args).ended),
  );
  expect(ofServe).toMatchObject({ code: 0, stderr: "" });
  const said = ofServe?.stdout.replaceAll(/\s+/g, " ");
  for (const { env, flag, placeholder, description, allowed, defaultText } of Object.values(SETTINGS)) {
    expect(said).toContain(`--${flag} ${placeholder}`);
    expect(said).toContain(`${description}: ${allowed} (default: ${defaultText}; env: ${env})`);
  }
  expect(version).toMatchObject({ code: 0, stderr: "" });
  expect(version?.stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
});

test("an invalid command line exits with code 2", async () => {
  await using stage = await openStage();
  await Promise.all([
    isRefused(stage.program(["conquer"]), 2, /unknown command 'conquer'/),
    isRefused(stage.program(["serve", "--colour"]), 2, /unknown option '--colour'/),
    isRefused(
      stage.program(["serve", "--heartbeat-interval", "10"]),
      2,
      /^--heartbeat-interval is "10": it must be a duration/,
    ),
  ]);
});

test("a port in use is named, with the setting that changes it", async () => {
  await using stage = await openStage();
  await using database = await createTestDatabase();
  const taken = createServer();
  await new Promise<void>((resolve) => taken.listen(0, "127.0.0.1", resolve));
  const address = taken.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  try {
    for (const [name, listener] of [
      ["HARBORFORGE_GRPC_ADDRESS", "gRPC"],
      ["HARBORFORGE_HTTP_ADDRESS", "Connect"],
    ] as const) {
      await isRefused(
        serveOn(stage, database.url, { [name]: `127.0.0.1:${port}` }),
        1,
        new RegExp(
          `^The ${listener} listener cannot listen on 127\\.0\\.0\\.1:${port}: another program listens there already\\. Set ${name} `,
        ),
      );
    }
    // With an embedded database, the program stops that, too.
    const { code, stderr } = await stage.program(["serve"], {
      env: { HARBORFORGE_HTTP_ADDRESS: `127.0.0.1:${port}` },
    }).ended;
    expect(code).toBe(1);
    expect(stderr).toMatch(/"event":"postgres.stopped"[\s\S]*The Connect listener cannot listen/);
  } finally {
    taken.close();
  }
});

test("an incomplete data folder, or one of another owner, is rejected and left unchanged", async () => {
  await using stage = await openStage();
  const cluster = join(stage.dataDir, "postgresql");
  await mkdir(cluster, { recursive: true });
  await writeFile(join(cluster, "PG_VERSION"), "18\n");
  await isRefused(
    stage.program(["serve"]),
    1,
    /^The PostgreSQL cluster in .* is incomplete \(global\/pg_control is missing\)\. /,
  );
  expect(await readdir(stage.dataDir)).toEqual(["postgresql"]);
  expect(await readdir(cluster)).toEqual(["PG_VERSION"]);

  const letters = join(stage.path, "letters");
  await mkdir(letters);
  await writeFile(join(letters, "to-ada.txt"), "Dear Ada");
  await isRefused(
    stage.program(["serve"], { env: { HARBORFORGE_DATA_DIR: letters } }),
    1,
    /is not empty and has no data of this service \(it has to-ada\.txt\)/,
  );
  expect(await readdir(letters)).toEqual(["to-ada.txt"]);
});

test("a data folder without access is rejected with a solution", async () => {
  await using stage = await openStage();
  if (process.getuid?.() === 0) {
    // Root may do everything, but PostgreSQL does not run as root.
    const cluster = join(stage.dataDir, "postgresql");
    for (const folder of ["global", "base", "pg_wal"]) await mkdir(join(cluster, folder), { recursive: true });
    for (const file of ["global/pg_control", "pg_hba.conf", "postgresql.conf"])
      await writeFile(join(cluster, file), "");
    await writeFile(join(cluster, "PG_VERSION"), "18\n");
    await isRefused(stage.program(["serve"]), 1, /belongs to root, and PostgreSQL does not run as root\. .*chown/);
  } else {
    const closed = join(stage.path, "closed");
    await mkdir(closed, { mode: 0o500 });
    const env = { HARBORFORGE_DATA_DIR: join(closed, "data") };
    await isRefused(
      stage.program(["serve"], { env }),
      1,
      /cannot be used for lack of permission .*HARBORFORGE_DATA_DIR/,
    );
    await chmod(closed, 0o700);
  }
});

test("an unusable database is rejected with the reason, and without its password", async () => {
  await using stage = await openStage();
  await using database = await createTestDatabase();
  const url = new URL(database.url);
  const host = url.host.replaceAll(".", "\\.");
  const changed = (change: (url: URL) => void): string => {
    const copy = new URL(url);
    change(copy);
    return copy.href;
  };
  await isRefused(
    serveOn(
      stage,
      changed((u) => {
        u.password = "wrong-password";
      }),
    ),
    1,
    new RegExp(`^The database ${host}/\\w+ rejects the login \\(password authentication failed.* DATABASE_URL\\.\n$`),
  );
  await isRefused(
    serveOn(
      stage,
      changed((u) => {
        u.password = "";
      }),
    ),
    1,
    /requires a password, and the one in DATABASE_URL is missing/,
  );
  await isRefused(
    serveOn(
      stage,
      changed((u) => {
        u.pathname = "/nowhere";
      }),
    ),
    1,
    /\/nowhere does not exist .*Create it, or check DATABASE_URL\.\n$/,
  );
  await isRefused(
    serveOn(
      stage,
      changed((u) => {
        u.port = "1";
      }),
    ),
    1,
    /^The database 127\.0\.0\.1:1\/\w+ is unreachable \(connect ECONNREFUSED 127\.0\.0\.1:1\)\. Check DATABASE_URL\.\n$/,
  );
  await isRefused(
    serveOn(
      stage,
      changed((u) => {
        u.searchParams.set("sslmode", "verify-full");
      }),
    ),
    1,
    /is unreachable with the encryption of DATABASE_URL \(.*\)\. Check its sslmode\.\n$/,
  );
});

test("a PostgreSQL that is too old is rejected", async () => {
  await using stage = await openStage();
  await using old = await startOldPostgres("140019");
  await isRefused(serveOn(stage, old.url), 1, /^PostgreSQL 14 is too old\. Use 15 or newer/);
});

test("a database whose user may not create tables is rejected", async () => {
  await using stage = await openStage();
  await using database = await createEmptyDatabase();
  const role = `hf_${new URL(database.url).pathname.slice(1)}`;
  await administer(database.url, `CREATE ROLE ${role} LOGIN PASSWORD 'secret'`);
  const url = new URL(database.url);
  url.username = role;
  url.password = "secret";
  try {
    await isRefused(
      serveOn(stage, url.href),
      1,
      /denies this user permission \(.*permission denied for schema public\)/,
    );
  } finally {
    await administer(database.url, `DROP ROLE ${role}`);
  }
});

test("a database that is read-only, of another encoding, or without free connections is rejected with what to do", async () => {
  await using stage = await openStage();
  await using database = await openOwnedDatabase();
  const name = new URL(database.adminUrl).pathname.slice(1);
  const elsewhere = new URL(database.adminUrl);
  elsewhere.pathname = "/postgres";
  await administer(elsewhere.href, `ALTER DATABASE ${name} SET default_transaction_read_only = on`);
  await isRefused(
    serveOn(stage, database.url),
    1,
    /^The database .* is read-only \(default_transaction_read_only is on\)\. Set DATABASE_URL to the primary server, or allow writes again\.\n$/,
  );
  await administer(
    elsewhere.href,
    `ALTER DATABASE ${name} RESET default_transaction_read_only`,
    `ALTER ROLE ${database.role} CONNECTION LIMIT 0`,
  );
  await isRefused(
    serveOn(stage, database.url),
    1,
    /^The database .* has no free connection \(too many connections for role .*\)\. Raise the limit of the server, the database or the role, or try again later\.\n$/,
  );
  const latin = `${name}_latin`;
  await administer(
    elsewhere.href,
    `ALTER ROLE ${database.role} CONNECTION LIMIT -1`,
    `CREATE DATABASE ${latin} OWNER ${database.role} ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0`,
  );
  try {
    const url = new URL(database.url);
    url.pathname = latin;
    await isRefused(
      serveOn(stage, url.href),
      1,
      /^The database has the encoding LATIN1, .* create one with ENCODING 'UTF8'/,
    );
  } finally {
    await administer(elsewhere.href, `DROP DATABASE ${latin} WITH (FORCE)`);
  }
});

test("a database of a newer version that excludes this one is rejected and left unchanged", async () => {
  await using stage = await openStage();
  await using database = await createTestDatabase();
  await administer(
    database.url,
    "INSERT INTO schema_migrations (name, batch, migration_time) VALUES ('9999_of_tomorrow', 9, now())",
    "UPDATE schema_compatibility SET compatible_from = '999.0.0'",
  );
  for (const command of ["serve", "migrate"]) {
    await isRefused(
      stage.program([command], { env: { DATABASE_URL: database.url } }),
      1,
      /migrated by a newer version of this service \(it has 9999_of_tomorrow\), and needs at least version 999\.0\.0\./,
    );
  }
});
