import { Code, ConnectError } from "@connectrpc/connect";
import { expect, test } from "vitest";
import { endReason } from "../../src/call.ts";

const SETTINGS = {
  deadlineExceeded: new ConnectError("late", Code.DeadlineExceeded),
  cancelled: new ConnectError("cancelled", Code.Canceled),
};

test.each([
  { deadline: "a past deadline", at: Date.now() - 60_000, reason: SETTINGS.deadlineExceeded },
  { deadline: "a past deadline as a date", at: new Date(Date.now() - 60_000), reason: SETTINGS.deadlineExceeded },
  { deadline: "a later deadline", at: Date.now() + 3_600_000, reason: SETTINGS.cancelled },
  { deadline: "no deadline", at: Number.POSITIVE_INFINITY, reason: SETTINGS.cancelled },
])("a call with $deadline ends with the reason $reason.message", ({ at, reason }) => {
  expect(endReason({ getDeadline: () => at }, SETTINGS)).toBe(reason);
});
