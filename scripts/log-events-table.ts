import { ALARM_LEVELS, type Alarm, LOG_EVENTS } from "../common/logging/log-events.ts";
import { POSTGRES_EVENTS } from "../packages/embedded-postgres/src/log-events.ts";

/** The table of the events at warn and above in docs/operations.md. */
export function logEventsTable(): string {
  const events: Readonly<Record<string, Readonly<Record<string, Alarm>>>> = {
    ...LOG_EVENTS,
    warn: { ...LOG_EVENTS.warn, ...POSTGRES_EVENTS.warn },
  };
  const rows = ALARM_LEVELS.flatMap((level) =>
    Object.entries(events[level] ?? {})
      .toSorted(([one], [other]) => (one < other ? -1 : 1))
      .map(([name, { meaning, action }]) => `| \`${name}\` | ${level} | ${meaning} | ${action} |`),
  );
  return ["| event | level | meaning | what to do |", "| --- | --- | --- | --- |", ...rows].join("\n");
}
