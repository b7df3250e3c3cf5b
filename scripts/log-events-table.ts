import { ALARM_LEVELS, type Alarm, LOG_EVENTS } from "../common/logging/log-events.ts";
import { POSTGRES_EVENTS } from "../packages/embedded-postgres/src/log-events.ts";

/** The table of the events at warn and above in docs/operations.md. */
export function logEventsTable(): string {
  const { fatal, error, warn } = LOG_EVENTS;
  const events = { fatal, error, warn: { ...warn, ...POSTGRES_EVENTS.warn } };
  const rows = ALARM_LEVELS.flatMap((level) =>
    Object.entries<Alarm>(events[level])
      .toSorted(([one], [other]) => (one < other ? -1 : 1))
      .map(([name, { meaning, action }]) => `| \`${name}\` | ${level} | ${meaning} | ${action} |`),
  );
  return ["| event | level | meaning | what to do |", "| --- | --- | --- | --- |", ...rows].join("\n");
}
