import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { metricsTables } from "../../scripts/metrics-tables.ts";
import { dashboardExpressions, problemsOf, ruleExpressions, rulesOf } from "../../scripts/observability.ts";
import { root } from "../../scripts/run-tool.ts";
import type { LabelValues, MetricDefinition } from "../../src/telemetry/metrics/metric-definition.ts";
import { METRICS } from "../../src/telemetry/metrics/metric-table.ts";
import { section } from "../support/fenced-blocks.ts";

const recording = await rulesOf("recording.yml");
const alerts = await rulesOf("alerts.yml");
const expressions = [
  ...(await ruleExpressions("recording.yml")),
  ...(await ruleExpressions("alerts.yml")),
  ...(await dashboardExpressions()),
];

describe("the dashboard and the rules", () => {
  test.for(expressions)("name existing metrics, labels and values: $place", (expression) => {
    expect(problemsOf(expression, recording)).toEqual([]);
  });

  test.each([
    ["harborforge_no_such_metric > 1", "there is no metric harborforge_no_such_metric"],
    ["harborforge_silent_claws > 1", "there is no metric harborforge_silent_claws"],
    ['harborforge_fleet_agents{state="idle"}', "harborforge_fleet_agents has no label state"],
    ['harborforge_fleet_agents{status=~"idle|asleep"}', "status of harborforge_fleet_agents is never asleep"],
    ["sum by (reason) (harborforge_fleet_agents)", "no metric of the expression has a label reason"],
    ["rate(harborforge_commit_seconds[5m])", "there is no metric harborforge_commit_seconds"],
    ["sum by (job) (rate(process_no_such_total[5m]))", "there is no metric process_no_such_total"],
    ["sum by (job (harborforge_ready)", "syntax error"],
  ])("are rejected otherwise: %s", (expr, problem) => {
    expect(problemsOf({ place: "here", expr }).join("\n")).toContain(problem);
  });

  test("cover every metric that is not a former name, as a graph or as an alert", () => {
    const text = expressions.map(({ expr }) => expr).join("\n");
    const unused = Object.entries<MetricDefinition>(METRICS).filter(
      ([name, { replacedBy }]) => replacedBy === undefined && !text.includes(name),
    );
    // By code, and streams that ended later: for questions that the dashboard does not ask.
    expect(unused.map(([name]) => name)).toEqual(["harborforge_rpc_calls_total"]);
  });
});

describe("each alert", () => {
  test("has a severity, a summary and its own section of the runbooks", async () => {
    const page = await readFile(join(root, "docs/runbooks.md"), "utf8");
    const sections = [...page.matchAll(/^### (Harborforge\w+)$/gm)].map(([, name]) => name);
    expect(sections.toSorted()).toEqual(alerts.map(({ alert }) => alert).toSorted());
    for (const { alert = "", labels, annotations } of alerts) {
      expect(["page", "ticket"]).toContain(labels?.severity);
      expect(annotations?.summary).toBeTruthy();
      expect(annotations?.runbook).toBe(`docs/runbooks.md#${alert.toLowerCase()}`);
    }
  });

  test("has a runbook that says what it means, how to tell us from them, and what to do", async () => {
    const page = await readFile(join(root, "docs/runbooks.md"), "utf8");
    for (const text of page.split(/^### /m).slice(1)) {
      expect(text).toContain("**Meaning.**");
      expect(text).toContain("**Us or them.**");
      expect(text).toContain("**Do.**");
    }
  });
});

describe("the metrics", () => {
  test("are those of docs/metrics.md", async () => {
    const page = await readFile(join(root, "docs/metrics.md"), "utf8");
    expect(section(page, "metrics").trim()).toBe(metricsTables());
  });

  test("have no label that names an agent, a claw, a user or a caller", () => {
    for (const [name, { labels = {} }] of Object.entries<MetricDefinition>(METRICS))
      for (const label of Object.keys(labels))
        expect(`${name}{${label}}`).not.toMatch(/\{.*(agent|claw|user|principal)/);
  });

  test("have few series", () => {
    for (const [name, { labels = {}, buckets = [] }] of Object.entries<MetricDefinition>(METRICS)) {
      const series = Object.values<LabelValues>(labels)
        .filter((values) => typeof values !== "string")
        .reduce((count, values) => count * values.length, 1);
      expect(series * (buckets.length + 1), name).toBeLessThanOrEqual(100);
    }
  });

  test("name the metric that replaces a former one", () => {
    for (const [name, { replacedBy, type }] of Object.entries<MetricDefinition>(METRICS)) {
      if (replacedBy !== undefined) expect(Object.keys(METRICS), name).toContain(replacedBy);
      if (type === "counter") expect(name).toMatch(/_total$/);
    }
  });
});
