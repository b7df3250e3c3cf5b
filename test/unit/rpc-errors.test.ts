import { Code, ConnectError } from "@connectrpc/connect";
import { describe, expect, test } from "vitest";
import { ErrorReasonSchema } from "../../gen/harborforge/agents/v1/error_reason_pb.ts";
import { invalidField, type Reason, Refusal } from "../../src/domain/errors.ts";
import {
  codeOf,
  errorReasonOf,
  fromLibrary,
  internalError,
  reasonText,
  toConnectError,
} from "../../src/rpc/errors/error-table.ts";
import { failureOf } from "../support/rpc-clients.ts";

const reasons = ErrorReasonSchema.values
  .filter(({ number }) => number !== 0)
  .map(({ name }) => name.slice("ERROR_REASON_".length) as Reason);

describe("the table of reasons", () => {
  test.each(reasons)("has %s, with the contract's number and name", (reason) => {
    expect(ErrorReasonSchema.value[errorReasonOf(reason)]?.name).toBe(`ERROR_REASON_${reason}`);
    expect(reasonText(reason)).toBe(reason);
    expect(Code[codeOf(reason)]).toBeDefined();
  });

  test("uses the codes of the contract", () => {
    expect(codeOf("INVALID_FIELD")).toBe(Code.InvalidArgument);
    expect(codeOf("REQUEST_ID_REUSED")).toBe(Code.InvalidArgument);
    expect(codeOf("REVISION_MISMATCH")).toBe(Code.Aborted);
    expect(codeOf("AGENT_OFFLINE")).toBe(Code.FailedPrecondition);
    expect(codeOf("REVISION_COMPACTED")).toBe(Code.OutOfRange);
    expect(codeOf("WATCHER_TOO_SLOW")).toBe(Code.ResourceExhausted);
    expect(codeOf("HTTP2_REQUIRED")).toBe(Code.Unimplemented);
  });
});

describe("toConnectError", () => {
  test("keeps the message, data, violations and delay of a rejection", () => {
    const refusal = new Refusal("DRAINING", "call another replica", {
      metadata: { replica: "a" },
      violations: [{ field: "beats[3].agent_id", description: "must be set" }],
      retryAfterMs: 1_250,
    });
    expect(failureOf(toConnectError(refusal))).toEqual({
      code: Code.Unavailable,
      message: "call another replica",
      reason: "DRAINING",
      domain: "harborforge.agents",
      metadata: { field: "beats[3].agent_id", replica: "a" },
      fields: ["beats[3].agent_id"],
      retryMs: 1_250,
    });
  });

  test("omits details that are not meant for the caller", () => {
    for (const thrown of [
      new Error("password=1"),
      "password=1",
      undefined,
      new ConnectError("password=1", Code.Internal),
    ]) {
      const error = toConnectError(thrown);
      expect(failureOf(error)).toMatchObject({ code: Code.Internal, message: "internal error", reason: "INTERNAL" });
      expect(error.cause).toBe(thrown);
    }
  });

  test("gives every code of a library a reason", () => {
    for (let code: Code = 1; code <= 16; code += 1) {
      const failed = failureOf(toConnectError(new ConnectError("why", code)));
      expect(failed.reason).toMatch(/^[A-Z][A-Z0-9_]+[A-Z0-9]$/);
      expect(failed.domain).toBe("harborforge.agents");
    }
  });

  test("keeps an error that has its reason", () => {
    const error = toConnectError(invalidField("username", "must be set"));
    expect(toConnectError(error)).toBe(error);
  });

  test("truncates long messages, and repairs text that cannot be encoded", () => {
    const error = toConnectError(invalidField("a", `${"x".repeat(999)}\u{1f600}${"x".repeat(100_000)}`));
    expect(error.rawMessage.length).toBeLessThan(1_100);
    expect(() => encodeURIComponent(error.rawMessage)).not.toThrow();
    expect(() => encodeURIComponent(toConnectError(invalidField("a", "\ud800")).rawMessage)).not.toThrow();
  });
});

describe("errors of libraries", () => {
  test.each([
    [Code.Internal, "parse binary: premature EOF", Code.InvalidArgument, "INVALID_FIELD"],
    [Code.Internal, "Failed to decompress message", Code.InvalidArgument, "INVALID_FIELD"],
    [Code.Internal, 'Invalid grpc-timeout value "soon"', Code.InvalidArgument, "INVALID_FIELD"],
    [Code.Internal, "something of ours", Code.Internal, "INTERNAL"],
    [Code.ResourceExhausted, "Received message larger than max (5 vs 4)", Code.ResourceExhausted, "LIMIT_EXCEEDED"],
    [Code.DeadlineExceeded, "Deadline exceeded", Code.DeadlineExceeded, "DEADLINE_EXCEEDED"],
    [Code.Canceled, "", Code.Canceled, "CANCELLED"],
    [Code.Unimplemented, "protocol error: missing input message", Code.Unimplemented, "UNIMPLEMENTED"],
  ])("%i %s", (code, text, expectedCode, reason) => {
    expect(failureOf(fromLibrary(code, text))).toMatchObject({ code: expectedCode, reason });
  });

  test("the cause of an internal error is kept for the log", () => {
    const cause = new Error("x");
    expect(internalError(cause).cause).toBe(cause);
  });
});
