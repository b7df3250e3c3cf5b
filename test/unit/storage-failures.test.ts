import { wrapError } from "db-errors";
import { describe, expect, it } from "vitest";
import { Refusal } from "../../src/domain/errors.ts";
import {
  ConnectionTimeout,
  databaseUnavailable,
  failureKind,
  isLostConnection,
  refusalFor,
  violatedConstraint,
} from "../../src/storage/failures.ts";
import {
  INTERNAL_TEXT,
  kindOfSqlState,
  RAISED_ERRORS,
  SQLSTATES,
  serverError,
  wrapped,
} from "../support/database-errors.ts";

describe("a failure of a statement", () => {
  it("has a kind for every SQLSTATE of PostgreSQL", () => {
    expect(SQLSTATES.size).toBeGreaterThan(200);
    expect([...SQLSTATES].filter((code) => kindOfSqlState(code) === undefined)).toEqual([]);
  });

  it("has that kind, wrapped by Objection or not", () => {
    const kindOf = (error: unknown) => [failureKind(error), failureKind(wrapped(error))];
    expect(RAISED_ERRORS.length).toBeGreaterThan(200);
    expect(RAISED_ERRORS.map(({ title, make }) => [title, ...kindOf(make())])).toEqual(
      RAISED_ERRORS.map(({ title, kind }) => [title, kind, kind]),
    );
  });

  it("is reported as an unavailable database unless it is a defect", () => {
    for (const { title, make, kind } of RAISED_ERRORS) {
      const thrown = make();
      const told = refusalFor(thrown);
      if (kind === "defect") {
        expect(told, title).toBe(thrown);
        continue;
      }
      expect(told, title).toMatchObject({ reason: "DATABASE_UNAVAILABLE", retryAfterMs: 1_000 });
      expect(String(told), title).not.toContain(INTERNAL_TEXT);
    }
  });

  it("by a timeout of the connection counts as a lost connection", () => {
    expect(failureKind(new ConnectionTimeout(5_000))).toBe("lost");
  });

  it("by a database that is being replaced by another one is a lost connection", () => {
    const closed = Object.assign(new Error('database "a" is not currently accepting connections'), { code: "55000" });
    expect(failureKind(closed)).toBe("lost");
    expect(failureKind(serverError("3D000"))).toBe("lost");
  });

  it("by a constraint is not retried", () => {
    const refusal = databaseUnavailable(undefined);
    expect(failureKind(refusal)).toBe("defect");
    expect(refusalFor(refusal)).toBe(refusal);
  });
});

describe("a lost connection", () => {
  it("is only a failure that is known to be one", () => {
    expect(isLostConnection(serverError("57P01"))).toBe(true);
    expect(isLostConnection(Object.assign(new Error("no"), { code: "ECONNREFUSED" }))).toBe(true);
    expect(isLostConnection(new Error("something else"))).toBe(false);
    expect(isLostConnection(Object.assign(new Error("no"), { code: "EACCES" }))).toBe(false);
  });
});

describe("a violated constraint", () => {
  const taken = (value: string) =>
    serverError("23505", { constraint: "users_username_key", detail: `Key (username)=(${value}) already exists.` });

  it.each([
    "a",
    "a\nb",
    "a\u2028b",
    "a\u2029b",
    "\u2028",
    "a) already exists",
    "\ud83d\ude00",
  ])("is named whatever the invalid value contains: %j", (value) => {
    expect(violatedConstraint(taken(value))).toBe("users_username_key");
    expect(violatedConstraint(wrapError(taken(value)))).toBe("users_username_key");
  });

  it("is undefined for other failures", () => {
    expect(violatedConstraint(serverError("23505"))).toBeUndefined();
    expect(violatedConstraint(wrapError(serverError("23505")))).toBeUndefined();
    expect(violatedConstraint({ constraint: "users_email_key" })).toBeUndefined();
  });
});

describe("the error for a caller", () => {
  it("keeps its cause for the log", () => {
    const cause = serverError("57P01");
    const refusal = refusalFor(cause);
    expect(refusal).toBeInstanceOf(Refusal);
    expect(refusal).toMatchObject({ cause });
  });

  it("states whether a change may have taken effect", () => {
    expect(databaseUnavailable(undefined, true).message).toContain("may or may not");
    expect(databaseUnavailable(undefined).message).not.toContain("may or may not");
  });
});
