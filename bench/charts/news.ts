import { dotPlot, type Row, valueText } from "./dot-plot.ts";
import type { Find } from "./find.ts";

const ROWS: readonly (readonly [label: string, scenario: string, p99: string, p50: string])[] = [
  [
    "change → watcher, same replica",
    "news",
    "change → watcher, same replica, p99",
    "change → watcher, same replica, p50",
  ],
  [
    "change → watcher, other replica",
    "news",
    "change → watcher, other replica, p99",
    "change → watcher, other replica, p50",
  ],
  ["lease end → watchers", "lease-ends", "lease end → watchers know, p99", "lease end → watchers know, p50"],
];

export function newsChart(find: Find): string | undefined {
  const rows = ROWS.flatMap(([label, scenario, late, usual]): Row[] => {
    const [p99, p50] = [find(scenario, late), find(scenario, usual)];
    if (p99 === undefined || p50 === undefined) return [];
    const { must, aim } = p99;
    return [
      {
        label,
        points: [
          { figure: p50.figure, kind: "own", hollow: true },
          { figure: p99.figure, kind: "own" },
        ],
        value: valueText(p99.figure, p99.unit),
        ...(must === undefined ? {} : { must }),
        ...(aim === undefined ? {} : { aim }),
      },
    ];
  });
  if (rows.length < 2) return undefined;
  return dotPlot({
    title: "Time from a change to its watchers",
    subtitle: "Time until watchers receive it, ms, logarithmic; less is better",
    rows,
    legend:
      "○ half of all, ● 99 of 100, at the right in figures. Marks: dashed what must be reached, dotted what is aimed for.",
  });
}
