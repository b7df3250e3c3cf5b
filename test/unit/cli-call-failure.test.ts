import { Code, ConnectError } from "@connectrpc/connect";
import { callErrorOf } from "harborforge-agents-client/internal";
import { describe, expect, test } from "vitest";
import { ErrorInfoSchema } from "../../gen/google/rpc/error_details_pb.ts";
import { callFailure } from "../../src/cli/call-failure.ts";

function exitCodeOf(code: Code, reason?: string): number {
  const details = reason === undefined ? [] : [{ desc: ErrorInfoSchema, value: { reason } }];
  const error = new ConnectError("as it was said", code, undefined, details);
  return callFailure(callErrorOf(error), "127.0.0.1:50051").exitCode;
}

describe("the exit code of a failed call", () => {
  test.each<[string, Code, number]>([
    ["REVISION_MISMATCH", Code.Aborted, 5],
    ["USERNAME_TAKEN", Code.AlreadyExists, 5],
    ["AGENT_NOT_FOUND", Code.NotFound, 4],
    ["INVALID_FIELD", Code.InvalidArgument, 2],
    ["DRAINING", Code.Unavailable, 3],
    ["PERMISSION_DENIED", Code.PermissionDenied, 6],
  ])("for the service's reason %s", (reason, code, exitCode) => {
    expect(exitCodeOf(code, reason)).toBe(exitCode);
  });

  test.each([
    [Code.Aborted, 3],
    [Code.Unavailable, 3],
    [Code.DeadlineExceeded, 3],
    [Code.AlreadyExists, 1],
    [Code.NotFound, 1],
    [Code.InvalidArgument, 1],
    [Code.Unauthenticated, 6],
  ])("for code %i from another source than the service, without a reason", (code, exitCode) => {
    expect(exitCodeOf(code)).toBe(exitCode);
  });
});
