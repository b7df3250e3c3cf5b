import { expect, test } from "vitest";
import { administer, createEmptyDatabase } from "../support/cluster.ts";
import { openStage, says, serves } from "../support/program.ts";

test("HARBORFORGE_MIGRATE=off waits until another process has migrated the database, then serves", async () => {
  await using stage = await openStage();
  await using database = await createEmptyDatabase();
  const env = { DATABASE_URL: database.url, HARBORFORGE_LOG_FORMAT: "json" };
  const waiting = stage.program(["serve"], { env: { ...env, HARBORFORGE_MIGRATE: "off" } });
  await says(waiting, /"event":"database\.migration_awaited","missing":\["0001_tables"/);
  expect(waiting.stdout).toBe("");
  expect(await stage.program(["migrate"], { env }).ended).toMatchObject({ code: 0 });
  await serves(waiting);
  expect(waiting.stderr).not.toContain("database.migrated");
});

test("a replica that waits for a migration stops at a signal", async () => {
  await using stage = await openStage();
  await using database = await createEmptyDatabase();
  const env = { DATABASE_URL: database.url, HARBORFORGE_MIGRATE: "off" };
  const waiting = stage.program(["serve"], { env });
  await says(waiting, "waiting for the migration");
  waiting.kill("SIGTERM");
  expect(await waiting.ended).toMatchObject({ code: 0, stdout: "" });
});

test.each([
  ["HARBORFORGE_MIGRATE=check", ["serve"], { HARBORFORGE_MIGRATE: "check" }],
  ["migrate --check", ["migrate", "--check"], {}],
])("%s ends with 1 and a sentence before the migration, with 0 after it, and changes nothing", async (_, args, more) => {
  await using stage = await openStage();
  await using database = await createEmptyDatabase();
  const env = { DATABASE_URL: database.url, ...more };
  const check = () => stage.program(args, { env }).ended;
  for (let time = 0; time < 2; time += 1) {
    const { code, stdout, stderr } = await check();
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr).toMatch(
      /^The database .* is not migrated: the schema of this service is missing\. Run "harborforge-agents migrate"\.\n$/,
    );
  }
  await stage.program(["migrate"], { env }).ended;
  expect(await check()).toMatchObject({ code: 0, stdout: expect.stringMatching(/ is at the newest schema\.\n$/) });
  await administer(
    database.url,
    "INSERT INTO schema_migrations (name, batch, migration_time) VALUES ('9999_of_tomorrow', 9, now())",
    "UPDATE schema_compatibility SET compatible_from = '0.1.0'",
  );
  expect(await check()).toMatchObject({
    code: 0,
    stdout: expect.stringMatching(/ was migrated by a newer version \(9999_of_tomorrow\), and allows this one\.\n$/),
  });
});

test("serves on a database of a newer version that allows this one, and logs it", async () => {
  await using stage = await openStage();
  await using database = await createEmptyDatabase();
  const env = { DATABASE_URL: database.url, HARBORFORGE_LOG_FORMAT: "json" };
  await stage.program(["migrate"], { env }).ended;
  await administer(
    database.url,
    "INSERT INTO schema_migrations (name, batch, migration_time) VALUES ('9999_of_tomorrow', 9, now())",
    "UPDATE schema_compatibility SET compatible_from = '0.1.0'",
  );
  for (const setting of ["on", "off"]) {
    const serving = await stage.serve({ env: { ...env, HARBORFORGE_MIGRATE: setting } });
    await says(serving, /"event":"database\.schema_newer","unknown":\["9999_of_tomorrow"\],"compatibleFrom":"0\.1\.0"/);
    serving.kill("SIGTERM");
    await serving.ended;
  }
});

test("HARBORFORGE_MIGRATE=off keeps tokens from migrating the database", async () => {
  await using stage = await openStage();
  await using database = await createEmptyDatabase();
  const env = { DATABASE_URL: database.url, HARBORFORGE_MIGRATE: "off" };
  const { code, stderr } = await stage.program(["tokens", "list"], { env }).ended;
  expect({ code, stderr }).toEqual({
    code: 1,
    stderr:
      'The database is not migrated: the schema of this service is missing. Run "harborforge-agents migrate" first.\n',
  });
});
