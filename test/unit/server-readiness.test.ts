import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { createHealth, type Health } from "../../src/rpc/services/health.ts";
import { Readiness } from "../../src/server/readiness.ts";

describe("readiness", () => {
  let health: Health;
  let readiness: Readiness;

  beforeEach(() => {
    vi.useFakeTimers();
    health = createHealth();
    readiness = new Readiness(health);
  });

  afterEach(() => {
    readiness.close();
    vi.useRealTimers();
  });

  it("names each reason with its newest detail", () => {
    readiness.lose("no writes");
    readiness.lose("no writes", "SQLSTATE 25006");
    health.suspend("draining");
    expect(health.why).toBe("no writes: SQLSTATE 25006, draining");
  });

  it("comes back at once after the first loss", () => {
    readiness.lose("no reads");
    readiness.regain("no reads");
    expect(health.serving).toBe(true);
  });

  it("comes back later after each further loss within a minute, and at once after a quiet minute", () => {
    const changes = vi.fn();
    health.onChange(changes);
    for (const delayMs of [0, 2_000, 4_000, 8_000]) {
      readiness.lose("no reads");
      expect(health.serving).toBe(false);
      readiness.regain("no reads");
      if (delayMs > 0) {
        vi.advanceTimersByTime(delayMs - 1);
        expect(health.serving).toBe(false);
        vi.advanceTimersByTime(1);
      }
      expect(health.serving).toBe(true);
    }
    expect(changes).toHaveBeenCalledTimes(8);
    vi.advanceTimersByTime(60_000);
    readiness.lose("no reads");
    readiness.regain("no reads");
    expect(health.serving).toBe(true);
  });

  it("stays lost while a reason comes and goes quickly", () => {
    readiness.lose("no reads");
    readiness.regain("no reads");
    const changes = vi.fn();
    health.onChange(changes);
    for (let n = 0; n < 20; n += 1) {
      readiness.lose("no reads");
      vi.advanceTimersByTime(500);
      readiness.regain("no reads");
      vi.advanceTimersByTime(500);
    }
    expect(changes).toHaveBeenCalledTimes(1);
    expect(health.serving).toBe(false);
  });

  it("delays one reason without delaying another", () => {
    for (let n = 0; n < 2; n += 1) {
      readiness.lose("no reads");
      readiness.regain("no reads");
    }
    readiness.lose("no writes");
    readiness.regain("no writes");
    expect(health.why).toBe("no reads");
  });
});
