import { short } from "./figures.ts";
import type { Report } from "./report.ts";

/** The default configuration: the shortest interval, and the target heartbeats per second of a larger fleet. */
const INTERVAL_S = 10;
const BEATS_A_SECOND = 10_000;
const FLEETS = [1_000, 10_000, 50_000, 100_000, 200_000, 500_000, 1_000_000];

interface Shape {
  readonly title: string;
  /**
   * The names of measures: processor time of a beat in µs, memory of an agent, and bytes of a beat in both directions.
   */
  readonly serviceUs: readonly [scenario: string, name: string];
  readonly kib: readonly [scenario: string, name: string];
  readonly bytes: readonly (readonly [scenario: string, name: string])[];
  /** Larger fleets were not measured. */
  readonly most: number;
}

const SHAPES: readonly Shape[] = [
  {
    title: "100 agents to a stream",
    serviceUs: ["sizing", "service: CPU a beat"],
    kib: ["memory", "an agent, 100 to a stream, garbage included"],
    bytes: [
      ["heartbeats", "bytes from a client a beat, 100 agents a message"],
      ["heartbeats", "bytes to a client a beat, 100 agents a message"],
    ],
    most: 1_000_000,
  },
  {
    title: "A stream for each agent",
    serviceUs: ["heartbeats", "service: CPU a heartbeat, one agent a message"],
    kib: ["memory", "an agent with a stream of its own, garbage included"],
    bytes: [
      ["heartbeats", "bytes from a client, one agent a message"],
      ["heartbeats", "bytes to a client, one agent a message"],
    ],
    most: 100_000,
  },
];

/** The maximum overhead of TCP and IP for a small message, in bytes. */
const HEADER_BYTES = 66;

/** The resources of fleets of several sizes, computed from the measures, as Markdown. Empty if a measure is missing. */
export function sizingOf({ scenarios }: Report): string {
  const find = ([scenario, name]: readonly [string, string]): number => {
    const measures = scenarios.find((one) => one.name === scenario)?.measures;
    return measures?.find((measure) => measure.name === name)?.figure.median ?? Number.NaN;
  };
  const storageUs = find(["sizing", "PostgreSQL: CPU a beat"]);
  const walBytes = find(["sizing", "WAL a beat"]);
  const rows = find(["sizing", "rows written a beat"]);
  const idle = [
    find(["sizing", "idle service: share of a core"]),
    find(["sizing", "idle PostgreSQL: share of a core"]),
  ];
  const restMib = find(["sizing", "idle service: memory"]);
  const tables = SHAPES.map(({ title, serviceUs, kib, bytes, most }) => {
    const perBeat = bytes.map(find).reduce((sum, value) => sum + value, 0) + (most < 1_000_000 ? 2 * HEADER_BYTES : 0);
    const lines = FLEETS.filter((agents) => agents <= most).map((agents) => {
      const rate = Math.min(agents / INTERVAL_S, BEATS_A_SECOND);
      const cells = [
        agents.toLocaleString("en-US"),
        `${short(rate)} /s`,
        `${short((idle[0] ?? Number.NaN) + (rate * find(serviceUs)) / 10_000)} %`,
        `${short((idle[1] ?? Number.NaN) + (rate * storageUs) / 10_000)} %`,
        `${short(restMib + (agents * find(kib)) / 1_024)} MiB`,
        `${short(rate * rows)} /s`,
        `${short((rate * walBytes) / 1_000)} kB/s`,
        `${short((rate * perBeat) / 1_000)} kB/s`,
      ];
      return {
        cells,
        known: [find(serviceUs), storageUs, restMib, find(kib), rows, walBytes, perBeat].every(Number.isFinite),
      };
    });
    if (!lines.every(({ known }) => known)) return "";
    const head = [
      "agents",
      "beats",
      "service, of a core",
      "PostgreSQL, of a core",
      "service, memory",
      "rows",
      "WAL",
      "network",
    ];
    const row = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
    return [`${title}:`, "", row(head), row(head.map(() => "---:")), ...lines.map(({ cells }) => row(cells))].join(
      "\n",
    );
  });
  return tables.every((table) => table !== "") ? tables.join("\n\n") : "";
}
