import { describe, expect, it } from "vitest";
import type { KeyedStore, SubagentRuntime } from "../../src/gateway/plugin-api.ts";
import { type WakeOffer, WakeTurns } from "../../src/wakes/wake-turns.ts";

function memoryStore(): KeyedStore {
  const values = new Map<string, unknown>();
  return {
    async registerIfAbsent(key, value) {
      if (values.has(key)) return false;
      values.set(key, value);
      return true;
    },
    async register(key, value) {
      values.set(key, value);
    },
    lookup: async (key) => values.get(key),
  };
}

/** A gateway whose turns end as the test says. */
function scene({
  results = [{ status: "ok" }],
  ledger = memoryStore(),
  isDraining = false,
}: {
  readonly results?: readonly (object | Promise<object>)[];
  readonly ledger?: KeyedStore;
  readonly isDraining?: boolean;
} = {}) {
  const started: unknown[] = [];
  const taken: string[] = [];
  const left = [...results];
  const subagent: SubagentRuntime = {
    async run(request) {
      started.push(request);
      return { runId: request.idempotencyKey };
    },
    waitForRun: async () => left.shift() ?? { status: "ok" },
  };
  const onTaken = (gatewayId: string, runId: string): void => void taken.push(`${gatewayId} ${runId}`);
  return { turns: new WakeTurns({ subagent, ledger, isDraining: () => isDraining, onTaken }), started, taken, ledger };
}

const offer = (signal = new AbortController().signal): WakeOffer => ({
  wakeId: "slot-1",
  gatewayId: "main",
  message: "Start slot 1.",
  signal,
});

describe("a wake", () => {
  it("becomes one turn in the agent's main session, and the agent is busy at once", async () => {
    const { turns, started, taken } = scene();
    expect(await turns.take(offer())).toEqual({ kind: "finished", outcome: "succeeded", note: undefined });
    expect(taken).toEqual(["main slot-1"]);
    expect(started).toEqual([
      { sessionKey: "agent:main:main", message: "Start slot 1.", idempotencyKey: "slot-1", deliver: false },
    ]);
  });

  it("starts one turn when it is offered again, while it runs and after its end", async () => {
    const end = Promise.withResolvers<object>();
    const { turns, started } = scene({ results: [end.promise] });
    const both = [turns.take(offer()), turns.take(offer())];
    end.resolve({ status: "ok" });
    const results = [...(await Promise.all(both)), await turns.take(offer())];
    expect(results.map((result) => result.kind)).toEqual(["finished", "finished", "finished"]);
    expect(started).toHaveLength(1);
  });

  it("keeps its result over a restart of the gateway", async () => {
    const first = scene({ results: [{ status: "error", error: "no" }] });
    const result = await first.turns.take(offer());
    const second = scene({ ledger: first.ledger });
    expect(await second.turns.take(offer())).toEqual(result);
    expect(result).toEqual({ kind: "finished", outcome: "failed", note: "no" });
    expect(second.started).toEqual([]);
  });

  it("is not started again when an earlier process took it and its end is unknown", async () => {
    const ledger = memoryStore();
    await ledger.register("slot-1", { state: "taken" });
    const { turns, started } = scene({ ledger });
    expect(await turns.take(offer())).toEqual({ kind: "lost" });
    expect(started).toEqual([]);
  });

  it("is declined while the gateway drains", async () => {
    const { turns, started } = scene({ isDraining: true });
    expect(await turns.take(offer())).toEqual({ kind: "declined" });
    expect(started).toEqual([]);
  });

  it("goes on when the wait for its turn times out", async () => {
    const { turns } = scene({ results: [{ status: "timeout" }, { status: "ok" }] });
    expect(await turns.take(offer())).toMatchObject({ kind: "finished", outcome: "succeeded" });
  });

  it("is left alone when the service ends it", async () => {
    const stop = new AbortController();
    const { turns } = scene({ results: [new Promise(() => undefined)] });
    const taken = turns.take(offer(stop.signal));
    stop.abort();
    expect(await taken).toEqual({ kind: "abandoned" });
  });

  it.each(["run", "lookup"] as const)("fails without an exception when the gateway's %s fails", async (broken) => {
    const { turns, ledger } = scene();
    const failing = async (): Promise<never> => {
      throw new Error("the gateway is broken");
    };
    const other =
      broken === "run"
        ? new WakeTurns({
            subagent: { run: failing, waitForRun: failing },
            ledger,
            isDraining: () => false,
            onTaken: () => undefined,
          })
        : new WakeTurns({
            subagent: { run: failing, waitForRun: failing },
            ledger: { ...ledger, lookup: failing },
            isDraining: () => false,
            onTaken: () => undefined,
          });
    expect(await other.take(offer())).toMatchObject({ outcome: "failed", note: "the gateway is broken" });
    expect(await turns.take({ ...offer(), wakeId: "other" })).toMatchObject({ outcome: "succeeded" });
  });
});
