/**
 * How many files and sockets this process may have open (RLIMIT_NOFILE). Undefined if the system has no limit or does not tell it.
 * Node raises the soft limit to the hard limit at its start.
 */
export function openFilesLimit({ report }: Pick<NodeJS.Process, "report">): number | undefined {
  // Otherwise the report looks up the names of all open connections.
  Reflect.set(report, "excludeNetwork", true);
  const limits: unknown = Reflect.get(report.getReport(), "userLimits");
  const openFiles = property(limits, "open_files");
  const soft = property(openFiles, "soft");
  return typeof soft === "number" ? soft : undefined;
}

function property(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null ? Reflect.get(value, name) : undefined;
}
