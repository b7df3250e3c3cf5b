import { describe, expect, test } from "vitest";
import { namedQuery, statementName } from "../../src/storage/queries.ts";
import { Distribution } from "../../src/telemetry/metrics/distribution.ts";
import { Metrics } from "../../src/telemetry/metrics/metrics.ts";
import { MetricPage } from "../support/metric-page.ts";

describe("the metrics of a replica", () => {
  test("serve counters and histograms with known labels from the start", async () => {
    const page = await MetricPage.of(new Metrics());
    expect(page.get("harborforge_heartbeats_total", { result: "renewed" })).toBe(0);
    expect(page.get("harborforge_transitions_total", { cause: "report", to_status: "busy" })).toBe(0);
    expect(page.get("harborforge_commit_seconds_count")).toBe(0);
    // The methods are not known here.
    expect(page.names).not.toContain("harborforge_rpc_calls_total");
  });

  test("count by labels, whatever their order", async () => {
    const metrics = new Metrics();
    metrics.counter("harborforge_transitions_total", { cause: "report", to_status: "busy" }).add();
    metrics.counter("harborforge_transitions_total", { to_status: "busy", cause: "report" }).add(2);
    const page = await MetricPage.of(metrics);
    expect(page.get("harborforge_transitions_total", { cause: "report", to_status: "busy" })).toBe(3);
    expect(metrics.total("harborforge_transitions_total")).toBe(3);
  });

  test("read gauges at each scrape, and serve none without a value", async () => {
    const metrics = new Metrics();
    let ready: number | undefined;
    metrics.gauge("harborforge_ready", () => ready);
    expect((await MetricPage.of(metrics)).get("harborforge_ready")).toBeUndefined();
    ready = 1;
    expect((await MetricPage.of(metrics)).get("harborforge_ready")).toBe(1);
    ready = undefined;
    expect((await MetricPage.of(metrics)).get("harborforge_ready")).toBeUndefined();
  });

  test("serve the series of a gauge that are there now", async () => {
    const metrics = new Metrics();
    const open = new Map([["one", 1]]);
    metrics.gauges("harborforge_rpc_open_streams", () =>
      [...open].map(([method, value]) => [{ method }, value] as const),
    );
    expect((await MetricPage.of(metrics)).get("harborforge_rpc_open_streams", { method: "one" })).toBe(1);
    open.clear();
    open.set("two", 2);
    const page = await MetricPage.of(metrics);
    expect(page.get("harborforge_rpc_open_streams", { method: "one" })).toBeUndefined();
    expect(page.get("harborforge_rpc_open_streams", { method: "two" })).toBe(2);
  });

  test("serve histograms with cumulative buckets, the sum and the count", async () => {
    const metrics = new Metrics();
    const seconds = metrics.histogram("harborforge_commit_seconds");
    for (const value of [0.001, 0.002, 0.3, 100]) seconds.observe(value);
    const page = await MetricPage.of(metrics);
    const upTo = (le: string) => page.get("harborforge_commit_seconds_bucket", { le });
    expect(["0.001", "0.0025", "0.25", "0.5", "10", "+Inf"].map(upTo)).toEqual([1, 2, 2, 3, 3, 4]);
    expect(page.get("harborforge_commit_seconds_sum")).toBeCloseTo(100.303);
    expect(page.get("harborforge_commit_seconds_count")).toBe(4);
  });
});

test("a distribution counts a negative duration as 0: a clock was set back", () => {
  const seconds = new Distribution([1, 2]);
  seconds.observe(-5);
  expect([...seconds.cumulative()]).toEqual([
    [1, 1],
    [2, 1],
  ]);
  expect([seconds.sum, seconds.count]).toEqual([0, 1]);
});

describe("the name of a statement", () => {
  test.each([
    ["SELECT * FROM users WHERE id = $1", "other_select"],
    ['  insert into "users" ("username") values ($1)', "other_insert"],
    ["BEGIN;", "other_begin"],
    ["LISTEN agent_changes", "other"],
    ["", "other"],
    [undefined, "other"],
    [{ text: "update users set email = 'a'" }, "other_update"],
  ])("of %j is %s, without SQL", (statement, name) => {
    expect(statementName(statement)).toBe(name);
  });

  test("of a file of queries is the file's", () => {
    const { text } = namedQuery("commit-changes");
    expect(statementName({ name: "commit-changes", text })).toBe("commit-changes");
    expect(statementName({ text, values: [] })).toBe("commit-changes");
  });
});
