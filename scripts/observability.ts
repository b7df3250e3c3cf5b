import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { parser } from "@prometheus-io/lezer-promql";
import { parse } from "yaml";
import type { LabelValues, MetricDefinition } from "../src/telemetry/metrics/metric-definition.ts";
import { METRICS } from "../src/telemetry/metrics/metric-table.ts";
import { processMetrics } from "../src/telemetry/metrics/process-metrics.ts";
import { root } from "./run-tool.ts";

/** Where the dashboard and the rules are. */
export const OBSERVABILITY = join(root, "deploy/observability");

/** Labels that Prometheus adds to every metric, or that a histogram has. */
const ADDED_LABELS: ReadonlySet<string> = new Set(["job", "instance", "le"]);

/** The labels of a metric, with their values where all of them are known. */
type Labels = Readonly<Record<string, LabelValues>>;

export interface Rule {
  readonly record?: string;
  readonly alert?: string;
  readonly expr: string;
  readonly for?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
}

interface Panel {
  readonly title?: string;
  readonly panels?: readonly Panel[];
  readonly targets?: readonly { readonly expr?: string; readonly legendFormat?: string }[];
}

/** An expression of PromQL, and where it is. */
export interface Expression {
  readonly place: string;
  readonly expr: string;
  /** Labels that the text beside the expression shows. */
  readonly shown?: readonly string[];
}

/** The rules of a file. */
export async function rulesOf(file: string): Promise<readonly Rule[]> {
  const content: { groups: readonly { rules: readonly Rule[] }[] } = parse(
    await readFile(join(OBSERVABILITY, file), "utf8"),
  );
  return content.groups.flatMap(({ rules }) => rules);
}

export async function ruleExpressions(file: string): Promise<readonly Expression[]> {
  const rules = await rulesOf(file);
  return rules.map(({ record, alert, expr, annotations }) => ({
    place: `${file}: ${record ?? alert}`,
    expr,
    shown: Object.values(annotations ?? {}).flatMap((text) => matchesOf(text, /\$labels\.(\w+)/g)),
  }));
}

/** The expressions of the dashboard's panels and variables. Grafana's variables are replaced by values. */
export async function dashboardExpressions(): Promise<readonly Expression[]> {
  const dashboard: {
    panels: readonly Panel[];
    templating: { list: readonly { name: string; query?: unknown }[] };
  } = JSON.parse(await readFile(join(OBSERVABILITY, "dashboard.json"), "utf8"));
  const panels = dashboard.panels.flatMap((panel) => [panel, ...(panel.panels ?? [])]);
  const queries = dashboard.templating.list.flatMap(({ name, query }) => {
    const [, metric] = /^label_values\((.*), *\w+\)$/.exec(typeof query === "string" ? query : "") ?? [];
    return metric === undefined ? [] : [{ place: `variable ${name}`, expr: metric }];
  });
  const targets = panels.flatMap(({ title = "", targets = [] }) =>
    targets.flatMap(({ expr, legendFormat = "" }) =>
      expr === undefined
        ? []
        : [{ place: `panel ${title}`, expr, shown: matchesOf(legendFormat, /\{\{\s*(\w+)\s*\}\}/g) }],
    ),
  );
  return [...queries, ...targets].map((one) => ({
    ...one,
    expr: one.expr.replaceAll("$__rate_interval", "5m").replaceAll(/\$\{?\w+\}?/g, "x"),
  }));
}

/** What is wrong with an expression: a syntax error, an unknown metric, or a label or a value that the metric does not have. */
export function problemsOf({ place, expr, shown = [] }: Expression, recorded: readonly Rule[] = []): string[] {
  const known = knownMetrics(recorded);
  const problems: string[] = [];
  const all = new Set<string>(ADDED_LABELS);
  const grouped: string[] = [];
  let metric: string | undefined;
  const text = (node: { from: number; to: number }): string => expr.slice(node.from, node.to);
  parser.parse(expr).iterate({
    enter: (node) => {
      if (node.type.isError) problems.push(`${place}: syntax error at "${expr.slice(node.from, node.from + 20)}"`);
      if (node.name === "VectorSelector") metric = undefined;
      if (node.name === "Identifier" && node.matchContext(["VectorSelector"])) {
        metric = text(node);
        const labels = known.get(metric);
        if (labels === undefined) problems.push(`${place}: there is no metric ${metric}`);
        for (const label of Object.keys(labels ?? {})) all.add(label);
      }
      if (node.name === "UnquotedLabelMatcher") {
        const [, label = "", operator = "", value = ""] = /^(\w+)\s*(=~|!~|!=|=)\s*"(.*)"$/.exec(text(node)) ?? [];
        problems.push(...matcherProblems(place, metric, known.get(metric ?? ""), label, operator, value));
      }
      if (node.name === "LabelName" && node.matchContext(["GroupingLabels"])) grouped.push(text(node));
    },
  });
  for (const label of [...grouped, ...shown])
    if (!all.has(label)) problems.push(`${place}: no metric of the expression has a label ${label}`);
  return problems;
}

function matcherProblems(
  place: string,
  metric: string | undefined,
  labels: Labels | undefined,
  label: string,
  operator: string,
  value: string,
): string[] {
  if (labels === undefined || ADDED_LABELS.has(label)) return [];
  const values = labels[label];
  if (values === undefined) return [`${place}: ${metric} has no label ${label}`];
  if (typeof values === "string") return [];
  const wanted = operator.endsWith("~") ? value.split("|") : [value];
  return wanted.filter((one) => !values.includes(one)).map((one) => `${place}: ${label} of ${metric} is never ${one}`);
}

/** All metrics by the names of their series, without former names. */
function knownMetrics(recorded: readonly Rule[]): ReadonlyMap<string, Labels> {
  const known = new Map<string, Labels>();
  for (const [name, { type, labels = {}, replacedBy }] of Object.entries<MetricDefinition>(METRICS)) {
    if (replacedBy !== undefined) continue;
    const series = type === "histogram" ? ["_bucket", "_sum", "_count"] : [""];
    for (const suffix of series) known.set(`${name}${suffix}`, labels);
  }
  for (const { name, labelNames = [] } of processMetrics().getMetricsAsArray().map(nameAndLabels))
    for (const suffix of ["", "_bucket", "_sum", "_count"])
      known.set(`${name}${suffix}`, Object.fromEntries(labelNames.map((label) => [label, "any"])));
  // The labels of a recorded figure are those that its expression keeps, which Prometheus adds.
  for (const { record } of recorded) if (record !== undefined) known.set(record, {});
  return known;
}

/** The fields of a metric of prom-client that its types do not list. */
function nameAndLabels(metric: object): { readonly name?: string; readonly labelNames?: readonly string[] } {
  return metric;
}

function matchesOf(text: string, pattern: RegExp): string[] {
  return [...text.matchAll(pattern)].flatMap(([, found]) => (found === undefined ? [] : [found]));
}
