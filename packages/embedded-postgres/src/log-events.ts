/** All events of this package's log, by level. Names are stable. */
export const POSTGRES_EVENTS = {
  warn: {
    "postgres.ended": {
      meaning: "the embedded PostgreSQL ended by itself",
      action: "Read its log in `postgresql/log` of the data folder.",
    },
  },
  info: {
    "postgres.creating": "the first start creates a cluster in the data folder",
    "postgres.serving": "the embedded PostgreSQL serves; `adopted` if an earlier process had started it",
    "postgres.stopped": "the embedded PostgreSQL stopped",
  },
} as const;

interface Facts<Level extends keyof typeof POSTGRES_EVENTS> {
  readonly event: keyof (typeof POSTGRES_EVENTS)[Level];
  readonly [fact: string]: unknown;
}

/** The log as this package writes it: only with its own events. */
export interface PostgresLog {
  info(facts: Facts<"info">, message: string): void;
  warn(facts: Facts<"warn">, message: string): void;
}
