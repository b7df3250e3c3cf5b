import { describe, expect, it } from "vitest";
import { Refusal } from "../../src/domain/errors.ts";
import { databaseUnavailable, failureKind, refusalFor, violatedConstraint } from "../../src/storage/failures.ts";

function coded(code: string, message = "failed"): Error {
  return Object.assign(new Error(message), { code });
}

describe("a failure", () => {
  it.each([
    ["a connection exception", coded("08006")],
    ["a protocol violation", coded("08P01")],
    ["a server that is shut down", coded("57P01")],
    ["a server that crashed", coded("57P02")],
    ["a server that is starting", coded("57P03")],
    ["a standby that only reads", coded("25006")],
    [
      "a database that is being replaced, and closed",
      coded("55000", 'database "a" is not currently accepting connections'),
    ],
    ["a database that is being replaced, and gone", coded("3D000", 'database "a" does not exist')],
    ["a statement of which nobody knows the end", coded("40003")],
    ["a refused connection", coded("ECONNREFUSED")],
    ["a connection that was reset", coded("ECONNRESET")],
    ["a socket that is not there", coded("ENOENT")],
    ["a name that cannot be resolved at the moment", coded("EAI_AGAIN")],
    ["a connection that ended in the middle of a query", new Error("Connection terminated unexpectedly")],
    ["a connection that took too long", new Error("Connection terminated due to connection timeout")],
    ["an answer that never came", new Error("Query read timeout")],
    ["a pool that is exhausted", new Error("Knex: Timeout acquiring a connection. The pool is probably full.")],
    ["a pool that cannot connect", new Error("timeout exceeded when trying to connect")],
    ["all addresses of a name", new AggregateError([coded("ECONNREFUSED"), coded("ENETUNREACH")])],
  ])("by %s is a lost connection", (_, error) => {
    expect(failureKind(error)).toBe("lost");
  });

  it.each([
    ["a serialization failure", "40001"],
    ["a deadlock", "40P01"],
    ["a lock that was not to be had", "55P03"],
    ["a statement that was cancelled", "57014"],
    ["too many connections", "53300"],
    ["a transaction that idled while the replica was frozen, and was rolled back", "25P03"],
  ])("by %s is contention", (_, code) => {
    expect(failureKind(coded(code))).toBe("contention");
  });

  it("by a row that has no partition yet is contention", () => {
    const error = Object.assign(coded("23514", "no partition of relation found for row"), { constraint: undefined });
    expect(failureKind(error)).toBe("contention");
  });

  it.each([
    ["a constraint", coded("23505")],
    ["a check", Object.assign(coded("23514"), { constraint: "agents_status_known" })],
    ["a syntax error", coded("42601")],
    ["bad input", coded("22P02")],
    ["a wrong password", coded("28P01")],
    ["an object in another state", coded("55000", "sequence is not yet defined in this session")],
    ["a mistake of ours", new TypeError("undefined is not a function")],
    ["addresses that all fail otherwise", new AggregateError([coded("EACCES")])],
    ["a code that is no text", Object.assign(new Error("Connection"), { code: 42 })],
    ["what is no error", "Connection terminated"],
    ["nothing", undefined],
  ])("by %s is a defect", (_, error) => {
    expect(failureKind(error)).toBe("defect");
  });

  it("names the constraint that it violates", () => {
    expect(violatedConstraint(Object.assign(coded("23505"), { constraint: "users_email_key" }))).toBe(
      "users_email_key",
    );
    expect(violatedConstraint(coded("23505"))).toBeUndefined();
    expect(violatedConstraint(Object.assign(coded("23505"), { constraint: undefined }))).toBeUndefined();
    expect(violatedConstraint({ constraint: "users_email_key" })).toBeUndefined();
  });
});

describe("what a caller gets", () => {
  it("is a refusal that says when to try again, where that may help", () => {
    const cause = coded("57P01", "terminating connection of user postgres");
    const refusal = refusalFor(cause);
    expect(refusal).toBeInstanceOf(Refusal);
    expect(refusal).toMatchObject({ reason: "DATABASE_UNAVAILABLE", retryAfterMs: 1_000, cause });
    expect(refusal).toMatchObject({ message: expect.not.stringContaining("postgres") });
  });

  it("says whether a change may have taken effect", () => {
    expect(databaseUnavailable(undefined, true).message).toContain("may or may not");
    expect(databaseUnavailable(undefined).message).not.toContain("may or may not");
  });

  it("is the failure itself where repeating changes nothing, and a refusal as it is", () => {
    const defect = coded("42601");
    expect(refusalFor(defect)).toBe(defect);
    const refusal = databaseUnavailable(undefined);
    expect(refusalFor(refusal)).toBe(refusal);
  });
});
