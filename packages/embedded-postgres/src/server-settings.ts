/** Settings of PostgreSQL by name, as in `postgresql.conf`. */
export type ServerSettings = Readonly<Record<string, string>>;

/**
 * For a server that shares a machine with the service and serves it alone. They are given at every start, so a new release
 * changes them on clusters already there.
 */
const defaults: ServerSettings = {
  // The listener: this machine only, by password. There is no socket, as its folder would have to be short and private.
  listen_addresses: "127.0.0.1",
  unix_socket_directories: "",
  password_encryption: "scram-sha-256",
  // A stranger who connects and says nothing takes a place only for so long.
  authentication_timeout: "10s",
  max_connections: "100",

  // Acknowledged means on disk. Who can do with less says so for a session.
  fsync: "on",
  synchronous_commit: "on",
  shared_buffers: "128MB",

  timezone: "UTC",
  log_timezone: "UTC",

  // One file a weekday, begun anew when the day comes round. What a query got wrong is told to the service, which logs it.
  logging_collector: "on",
  log_destination: "stderr",
  log_directory: "log",
  log_filename: "postgresql-%a.log",
  log_truncate_on_rotation: "on",
  log_rotation_age: "1d",
  log_rotation_size: "0",
  log_min_messages: "log",
  log_checkpoints: "off",
};

/** The arguments for `postgres`. `settings` win over the defaults, `port` over both. */
export function settingArguments(settings: ServerSettings, port: number): string[] {
  const all = { ...defaults, ...settings, port: `${port}` };
  return Object.entries(all).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
}
