import { dotPlot, type Point, type Row, valueText } from "./dot-plot.ts";
import type { Find } from "./find.ts";

const ROWS: readonly (readonly [label: string, measure: string, kind: Point["kind"], strong?: true])[] = [
  ["grpc-js echo, the floor", "echo: CPU a message", "peer"],
  ["HarborForge, service alone", "service: CPU a heartbeat, one agent a message", "own"],
  ["HarborForge with PostgreSQL", "service + PostgreSQL: CPU a heartbeat", "own", true],
  ["… 100 agents a message", "service + PostgreSQL: CPU a beat, 100 agents a message", "own", true],
  ["connect-node echo", "connect-node echo: CPU a message", "peer"],
  ["etcd, lease keep-alive", "etcd keep-alive: CPU a message", "peer"],
  ["FastAPI, SQLAlchemy, PostgreSQL", "FastAPI + SQLAlchemy + PostgreSQL: CPU a heartbeat", "peer"],
];

export function heartbeatsChart(find: Find): string | undefined {
  const rows = ROWS.flatMap(([label, name, kind, strong]): Row[] => {
    const measure = find("heartbeats", name);
    if (measure === undefined) return [];
    const { figure, unit } = measure;
    return [{ label, points: [{ figure, kind }], value: valueText(figure, unit), ...(strong ? { strong } : {}) }];
  });
  if (rows.length < 2) return undefined;
  return dotPlot({
    title: "Cost of a heartbeat",
    subtitle: "Processor time of the server for each agent's heartbeat, µs, logarithmic; less is better",
    rows,
    legend:
      "Dots are medians, lines the spread of rounds. One agent a message and one stream an agent, unless said otherwise.",
  });
}
