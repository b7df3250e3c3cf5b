import { describe, expect, it } from "vitest";
import { exhaustionFromError } from "../../src/provider/exhaustion-from-error.ts";
import cases from "../cases/provider-errors.json" with { type: "json" };

/**
 * A JSON value as an error: with `thrown`, an `Error` with this message and the further properties. `lastError` and `cause` are
 * errors, too.
 */
function errorOf(input: unknown): unknown {
  if (typeof input !== "object" || input === null || !("thrown" in input)) return input;
  const { thrown: _, ...properties }: Readonly<Record<string, unknown>> = { ...input };
  const error = new Error(String(properties.message));
  for (const [key, value] of Object.entries(properties)) {
    const inner = key === "lastError" || key === "cause" ? errorOf({ thrown: true, ...Object(value) }) : value;
    Object.defineProperty(error, key, { value: inner, configurable: true, enumerable: true });
  }
  return error;
}

// Errors that people pasted in public issues, without personal details. Those that were cut off are completed by hand. `now`: the
// host's clock. `retryAfterSeconds`: the accepted range, or null if it is not checked.
describe("exhaustionFromError reads the errors of public reports", () => {
  it.each(cases.map((one) => ({ ...one, title: `${one.name} (${one.source})` })))("$title", ({
    now,
    input,
    expected,
  }) => {
    const exhaustion = exhaustionFromError(errorOf(input), Date.parse(now));
    expect(exhaustion?.reason ?? null).toBe(expected.reason);
    const [least, most] = expected.retryAfterSeconds ?? [];
    if (least === undefined || most === undefined) return;
    expect(exhaustion?.retryAfterMs).toBeGreaterThanOrEqual(least * 1_000);
    expect(exhaustion?.retryAfterMs).toBeLessThanOrEqual(most * 1_000);
  });
});
