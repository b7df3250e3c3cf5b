/** Settings of PostgreSQL by name, as in `postgresql.conf`. */
export type ServerSettings = Readonly<Record<string, string>>;

/**
 * Settings of a server that shares a machine with the service and has no other clients. They are passed at each start, so a new release
 * changes them on existing clusters.
 */
const defaults: ServerSettings = {
  // This machine only, by password. No Unix socket: its folder would need a short path and private permissions.
  listen_addresses: "127.0.0.1",
  unix_socket_directories: "",
  password_encryption: "scram-sha-256",
  // A connection without a login ends after this time.
  authentication_timeout: "10s",
  max_connections: "100",

  // A commit is on disk when it is acknowledged. Sessions may choose less.
  fsync: "on",
  synchronous_commit: "on",
  shared_buffers: "128MB",

  timezone: "UTC",
  log_timezone: "UTC",

  // One file for each weekday, overwritten a week later. The service logs the errors of its queries itself.
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

/** The arguments of `postgres`. `settings` override the defaults, `port` overrides both. */
export function settingArguments(settings: ServerSettings, port: number): string[] {
  const all = { ...defaults, ...settings, port: `${port}` };
  return Object.entries(all).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
}
