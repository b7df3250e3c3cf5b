import { DatabaseError } from "pg";
import { describe, expect, test } from "vitest";
import { loggedError } from "../../src/cli/logged-error.ts";
import { Refusal } from "../../src/domain/errors.ts";

/** An error of PostgreSQL with the wording of Knex. */
function databaseError(): Error {
  const error = new DatabaseError(
    'insert into "users" ("username") values ($1) - duplicate key value violates unique constraint "users_username_key"',
    1,
    "error",
  );
  return Object.assign(error, {
    code: "23505",
    severity: "ERROR",
    detail: "Key (username)=(ada) already exists.",
    table: "users",
    constraint: "users_username_key",
    where: 'SQL statement "insert into users"',
  });
}

describe("a logged error", () => {
  test("of the database driver has its code and names, not its message", () => {
    const logged = loggedError(databaseError());
    expect(logged).toMatchObject({
      type: "DatabaseError",
      code: "23505",
      table: "users",
      constraint: "users_username_key",
    });
    expect(JSON.stringify(logged)).not.toMatch(/insert|duplicate|ada|statement/i);
  });

  test("of the runtime has the message and the place in our code", () => {
    const broken = (): number => JSON.parse("{}").name.length;
    let thrown: unknown;
    try {
      broken();
    } catch (error) {
      thrown = error;
    }
    const logged = loggedError(thrown);
    expect(logged).toMatchObject({ type: "TypeError", message: expect.stringContaining("length") });
    expect(logged.at?.[0]).toMatch(/^test\/unit\/logged-error\.test\.ts:\d+$/);
    expect(JSON.stringify(logged)).not.toMatch(/node_modules|file:|\\n/);
  });

  test("logs causes with the same redaction", () => {
    const error = new Refusal("DATABASE_UNAVAILABLE", "the database is away: try again", { cause: databaseError() });
    expect(loggedError(error)).toMatchObject({
      type: "Refusal",
      code: "DATABASE_UNAVAILABLE",
      message: "the database is away: try again",
      cause: { type: "DatabaseError", code: "23505" },
    });
    const endless = new Error("round");
    endless.cause = endless;
    expect(JSON.stringify(loggedError(endless)).length).toBeLessThan(5_000);
  });

  test("omits messages that look like a credential or a statement, also our own", () => {
    for (const secret of [
      "cannot reach postgres://ada:hunter2@db:5432/agents now",
      "header authorization: Bearer hunter2",
      "token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJodW50ZXIyIn0.hunter2",
      "failed: select hunter2 from users where true",
    ]) {
      expect(JSON.stringify(loggedError(new RangeError(secret)))).not.toContain("hunter2");
    }
  });

  test("has only the type of a thrown value that is no Error", () => {
    expect(loggedError("hunter2")).toEqual({ type: "string", code: "none" });
    expect(loggedError(undefined)).toEqual({ type: "undefined", code: "none" });
  });
});
