/** An event that an operator may have to act on. */
export interface Alarm {
  readonly meaning: string;
  readonly action: string;
}

/** The levels whose events operators see as alarms. */
export const ALARM_LEVELS = ["fatal", "error", "warn"] as const;

/**
 * All events of the service's log, by level. Each has one level. Names are `<part>.<what_happened>` and stable: operators
 * search and raise alarms by them. `docs/operations.md` shows the alarms; `npm run generate` writes its table.
 */
export const LOG_EVENTS = {
  fatal: {
    "service.crashed": {
      meaning: "an error that no code handles; the replica stops",
      action: "Start the replica again. Report `err` as a defect.",
    },
    "service.postgres_ended": {
      meaning: "the embedded PostgreSQL ended by itself; the replica stops",
      action: "Read the log in `postgresql/log` of the data folder. Start the replica again.",
    },
  },
  error: {
    "audit.write_failed": {
      meaning: "audit lines were not written to `HARBORFORGE_AUDIT_FILE`",
      action: "Free space on its disk, and check the access rights of the file.",
    },
    "brake.engaged": {
      meaning:
        "more than a fifth of the claws fell silent; the brake limits the rate of expiry. `claws` counts them, `silent` has some of them, each with its incident, last heartbeat and address",
      action: "First look for a fault of the network or the service. The brake releases by itself.",
    },
    "call.handler_bypassed": {
      meaning: "a call of the Connect listener failed outside its handler",
      action: "Report `err` as a defect.",
    },
    "call.internal_error": {
      meaning: "a call failed with `INTERNAL`; the caller does not get the cause",
      action: "Report `err` as a defect.",
    },
    "claim.failed": {
      meaning: "a claim of agents failed with an unexpected error",
      action: "Check the database. If it is healthy, report `err` as a defect.",
    },
    "heartbeat.apply_failed": {
      meaning: "a heartbeat failed with an unexpected error",
      action: "Check the database. If it is healthy, report `err` as a defect.",
    },
    "heartbeat.write_failed": {
      meaning: "a batch of heartbeats was not written; the replica retries",
      action: "Check the database. If it is healthy, report `err` as a defect.",
    },
    "listener.failed": {
      meaning: "a listener cannot accept connections",
      action: "Check `err`. `EMFILE`, for example, asks for a higher limit of file descriptors.",
    },
    "process.files_exhausted": {
      meaning: "the process or the machine has no file descriptor left; new connections are closed at once",
      action: "Raise the limit of open files (`ulimit -n`, `LimitNOFILE`), or lower `HARBORFORGE_MAX_CONNECTIONS`.",
    },
    "tls.reload_failed": {
      meaning: "the check of the TLS files failed unexpectedly; the previous ones stay in use",
      action: "Check `err` and the files. The replica reads them again every few seconds.",
    },
  },
  warn: {
    "call.database_failed": {
      meaning: "calls fail at the database; at most one line in 10 s, `failures` counts the calls",
      action: "Look up the SQLSTATE in `err`: the disk, the rights of the user, or damaged pages.",
    },
    "call.protocol_failed": {
      meaning: "the protocol library failed a call with `INTERNAL`",
      action: "Report `err` as a defect.",
    },
    "claw.silent": {
      meaning:
        "a claw fell silent; all its `agents` go offline with the transitions of `incidentId`. `peer` is the address of its last connection",
      action: "Check the program `clawIdentifier` and its host `peer`. `lastHeartbeat` says when it was heard last.",
    },
    "connection.rejected": {
      meaning: "connections exceed `limit`; at most one line a minute",
      action:
        "Check the address `from`. If the clients are legitimate, raise `HARBORFORGE_MAX_CONNECTIONS` or `HARBORFORGE_CONNECTIONS_PER_SECOND`; for `openFiles` the limit of open files.",
    },
    "database.connections_exhausted": {
      meaning: "the server, the database or the role has no free connection (SQLSTATE 53300)",
      action:
        "Raise `max_connections` or the connection limit of the database or the role. A replica uses 17 connections.",
    },
    "database.disk_full": {
      meaning: "statements fail because the disk of the database is full (SQLSTATE 53100)",
      action: "Free some space. The replica notices it by itself.",
    },
    "database.read_only": {
      meaning: "the database rejects writes: it is a standby, or read-only by its settings (SQLSTATE 25006)",
      action:
        "Check that `DATABASE_URL` leads to the primary, and `default_transaction_read_only` of the database and the server.",
    },
    "database.session_lost": {
      meaning:
        "connections get other sessions than those that they began, and are closed; the line is about the first one",
      action: "Check that the connection pooler is in session mode.",
    },
    "database.slow": {
      meaning: "the database does not answer in time",
      action: "Check the load of the database and of this replica.",
    },
    "database.unavailable": {
      meaning: "the database is unreachable, or rejects the service; the replica is not ready",
      action: "Restore the database or the network. The replica reconnects by itself.",
    },
    "deadline.failed": {
      meaning: "a stored deadline of an agent, such as the lapse of a claim, was not acted on; the replica retries",
      action: "Check the database.",
    },
    "feed.history_changed": {
      meaning: "the log of transitions does not continue the last read; watchers start again",
      action: "None after a restore or a failover. Otherwise check which database the replica uses.",
    },
    "feed.listener_failed": {
      meaning: "a part of the replica failed to take transitions",
      action: "Report `err` as a defect.",
    },
    "feed.unavailable": {
      meaning: "the log of transitions cannot be read; watchers wait",
      action: "Check the database. Reading continues by itself.",
    },
    "jwt.keys_unavailable": {
      meaning: "the keys of JSON Web Tokens cannot be loaded; calls with new tokens fail",
      action: "Check `HARBORFORGE_JWT_JWKS`, and whether this replica can read it.",
    },
    "lease.expiry_failed": {
      meaning: "a lease could not be expired; the replica retries",
      action: "Check the database.",
    },
    "notifications.lost": {
      meaning: "no notifications of other replicas arrive; polling finds their changes, up to 250 ms later",
      action: "None while the database restarts. Otherwise check that the connection allows `LISTEN`.",
    },
    "process.files_limited": {
      meaning: "the limit of open files allows `connections` connections, fewer than `maxConnections`",
      action: "Raise the limit to `needed` (`ulimit -n`, `LimitNOFILE`), or lower `HARBORFORGE_MAX_CONNECTIONS`.",
    },
    "recovery.failed": {
      meaning: "an agent did not recover at its time",
      action: "Check the database.",
    },
    "replica.adoption_failed": {
      meaning: "the agents of a failed replica were not adopted; the replica retries",
      action: "Check the database.",
    },
    "replica.cut_off": {
      meaning: "the replica cannot write; it asks its streams to try other replicas",
      action: "Check the connection of this replica to the database.",
    },
    "replica.isolated": {
      meaning: "the replica was isolated and is back; it extends the leases by `graceMs`",
      action: "Look for the cause: the network, the database, or a process without processor time.",
    },
    "session.cleanup_failed": {
      meaning: "sessions that a restore brought back were not ended",
      action: "Check the database.",
    },
    "task.failed": {
      meaning: "a run of the periodic `task` failed; the next run retries, and only the first failure is logged",
      action: "Check the database.",
    },
    "tls.certificate_expired": {
      meaning: "the certificate has expired; clients reject it",
      action: "Renew it. The replica reloads it by itself.",
    },
    "tls.certificate_not_yet_valid": {
      meaning: "the certificate is not valid yet; clients reject it",
      action: "Check the clock of this machine and `notBefore`.",
    },
    "tls.files_rejected": {
      meaning: "the new TLS files are invalid, as `problem` says; the previous ones stay in use",
      action: "Correct the files. The replica reloads them by itself.",
    },
    "tokens.history_changed": {
      meaning: "the history of the database changed; the replica reads all tokens again",
      action: "None after a restore or a failover. Otherwise check which database the replica uses.",
    },
    "tracing.export_failed": {
      meaning: "spans cannot be exported, and are lost; at most one line a minute, `failures` counts the attempts",
      action: "Check `OTEL_EXPORTER_OTLP_ENDPOINT` and the collector. `code` has the fault of the connection.",
    },
    "tokens.unavailable": {
      meaning: "API tokens cannot be read; the replica uses cached ones for a while",
      action: "Check the database. Revocations do not take effect meanwhile.",
    },
    "wake.deadline_failed": {
      meaning: "a wake did not end at its deadline; the replica retries",
      action: "Check the database.",
    },
    "wake.offer_failed": {
      meaning: "a queued wake was not offered; the replica retries",
      action: "Check the database.",
    },
  },
  info: {
    "audit.call": "a call changed something; the line has `audit: true`",
    "audit.command": "a command changed something; the line has `audit: true`",
    "brake.released":
      "the mass silence is over: `agents` went offline meanwhile, and the brake held back `mostHeldBack` at a time",
    "call.slow": "a unary call took long; with `code` and `reason` if it failed",
    "claw.returned": "a silent claw sends heartbeats again; `agents` went offline with `incidentId`",
    "database.available": "the database answers in time again",
    "database.fault_ended": "statements have not met `fault` (an SQLSTATE, or `session lost`) for 10 s",
    "database.migrated": "the start ran `migrations`",
    "database.migration_awaited": "the start waits until another process has run `missing`; each 30 s",
    "database.schema_newer":
      "a newer version migrated the database: it has the migrations `unknown`, and allows versions from `compatibleFrom` on",
    "feed.gap_passed": "the feed passed a revision gap",
    "feed.resumed": "the log of transitions is read again",
    "lease.unwatched_found": "a scan found leases that no replica watched",
    "notifications.resumed": "notifications of other replicas arrive again",
    "process.files_available": "files and sockets can be opened again",
    "replica.adopted": "the replica adopted the agents of a replica that is gone",
    "retention.floor_raised": "older transitions may be removed now",
    "retention.partition_removed": "a partition of the log of transitions was removed",
    "service.draining": "the replica drains; a second signal stops it at once",
    "service.started":
      "the replica serves its listeners; the line has release, addresses, database, replica and the limits in force",
    "service.stop_announced": "health says not ready; the replica serves on for `delayMs`, then it drains",
    "service.stopped": "the replica stopped",
    "service.stopping_now": "a second signal ended the drain",
    "tracing.started": "spans are exported as the OTEL_… variables say",
    "tls.reloaded": "new connections get the new certificate",
    "tokens.available": "API tokens are read again",
  },
  debug: {
    "call.failed": "a call failed with `code` and `reason`",
    "call.rejected": "the listener rejected a call before its handler",
    "claim.release_failed": "the agents of closed streams were not released; their leases expire",
    "command.failed": "a command failed with an unexpected error",
    "connection.failed": "an HTTP/2 connection failed",
    "database.connection_ended": "an idle connection to the database ended",
    "replica.retire_failed": "the row of a stopping replica was not removed; other replicas adopt its agents later",
    "service.already_closed": "two stops at once closed the same part",
    "tls.client_rejected": "the certificate of a client is not valid",
    "tls.handshake_failed": "a TLS handshake failed",
    "wake.read_failed": "the states of wakes were not read for their claws; the replica retries",
    "wake.withdrawal_failed": "an offer of a stream that takes no wakes was not withdrawn; it ends at its deadline",
  },
} as const satisfies Record<(typeof ALARM_LEVELS)[number], Readonly<Record<string, Alarm>>> &
  Record<"info" | "debug", Readonly<Record<string, string>>>;

export type LogLevel = keyof typeof LOG_EVENTS;

/** The names of the events of a level. */
export type LogEvent<Level extends LogLevel = LogLevel> = Level extends LogLevel
  ? keyof (typeof LOG_EVENTS)[Level] & string
  : never;
