import type { LabelValues, MetricDefinition } from "../src/telemetry/metrics/metric-definition.ts";
import { METRIC_GROUPS } from "../src/telemetry/metrics/metric-table.ts";

/** The tables of all metrics in docs/metrics.md, one for each group, and one of the names that end with the next release. */
export function metricsTables(): string {
  const groups = Object.entries<Readonly<Record<string, MetricDefinition>>>(METRIC_GROUPS);
  const tables = groups.map(([title, metrics]) => {
    const rows = Object.entries(metrics)
      .filter(([, { replacedBy }]) => replacedBy === undefined)
      .map(([name, { type, help, labels }]) => `| \`${name}\` | ${type} | ${help} | ${labelsText(labels)} |`);
    return `### ${title}\n\n| metric | type | meaning | labels |\n| --- | --- | --- | --- |\n${rows.join("\n")}`;
  });
  const former = groups.flatMap(([, metrics]) =>
    Object.entries(metrics).flatMap(([name, { replacedBy }]) =>
      replacedBy === undefined ? [] : [`| \`${name}\` | \`${replacedBy}\` |`],
    ),
  );
  const ending = `### Former names\n\nThey end with the next release.\n\n| former | now |\n| --- | --- |\n${former.join("\n")}`;
  return [...tables, ending].join("\n\n");
}

function labelsText(labels: MetricDefinition["labels"]): string {
  return Object.entries<LabelValues>(labels ?? {})
    .map(([label, values]) => `\`${label}\`: ${typeof values === "string" ? values : values.join(", ")}`)
    .join("<br>");
}
