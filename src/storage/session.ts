import { randomBytes } from "node:crypto";
import pg from "pg";
import { READ_ONLY_REASON } from "./database-hosts.ts";
import { UnusableDatabase } from "./unusable-database.ts";

/** Settings of a session by their names, as `SET` takes them. */
export type SessionSettings = Readonly<Record<string, string>>;

/**
 * All settings that change what statements of this service mean, and how their results look. A role, a database or
 * another client of a pooler may have set others. Settings of other releases of PostgreSQL are skipped.
 */
const FIXED_SETTINGS: SessionSettings = {
  client_encoding: "UTF8",
  DateStyle: "ISO, MDY",
  IntervalStyle: "postgres",
  TimeZone: "UTC",
  bytea_output: "hex",
  extra_float_digits: "1",
  standard_conforming_strings: "on",
  array_nulls: "on",
  transform_null_equals: "off",
  row_security: "on",
  restrict_nonsystem_relation_kind: "",
  // A transaction that waited for a row has to see the changes of the lock's holder.
  default_transaction_isolation: "read committed",
  default_transaction_deferrable: "off",
  statement_timeout: "0",
  lock_timeout: "0",
  idle_in_transaction_session_timeout: "0",
  transaction_timeout: "0",
  // The pools close idle connections themselves. A listener is idle most of the time.
  idle_session_timeout: "0",
  exit_on_error: "off",
  "plpgsql.extra_errors": "none",
  "plpgsql.extra_warnings": "none",
};

/** A setting without a meaning for PostgreSQL. It shows whether a connection still has the session that it began. */
const MARKER = "harborforge.session";

/**
 * What `DISCARD ALL` does, but with the defaults of role and database in force, also for `SET ROLE`. The connection may
 * come from a pooler that does not clean up after its clients.
 */
const CLEAN = [
  "SET statement_timeout = 0",
  "RESET SESSION AUTHORIZATION",
  "RESET ROLE",
  "RESET ALL",
  "SET statement_timeout = 0",
  "CLOSE ALL",
  "DEALLOCATE ALL",
  "UNLISTEN *",
  "DISCARD PLANS",
  "DISCARD TEMP",
  "DISCARD SEQUENCES",
  "SELECT pg_advisory_unlock_all()",
].join("; ");

/**
 * SQL: the schema of this service, which is the one of the search path that has its tables, else the only one of the
 * database, else the first one of the path. And facts that some settings depend on.
 */
const FACTS = `
  WITH ours AS (
    SELECT n.nspname, array_position(current_schemas(false), n.nspname) AS place
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relname = 'revision_counter' AND c.relkind = 'r'
      AND EXISTS (SELECT FROM pg_class m WHERE m.relnamespace = c.relnamespace AND m.relname = 'schema_migrations')
  )
  SELECT
    coalesce(
      (SELECT nspname FROM ours WHERE place IS NOT NULL ORDER BY place LIMIT 1),
      (SELECT min(nspname) FROM ours HAVING count(*) = 1),
      current_schema(),
      'public'
    )::text AS schema,
    (SELECT array_agg(nspname::text ORDER BY nspname) FROM ours HAVING count(*) > 1 AND count(place) = 0) AS ambiguous,
    ${READ_ONLY_REASON} AS read_only,
    current_setting('server_version_num') AS server_version_num,
    current_setting('server_encoding') AS encoding,
    current_setting('default_transaction_read_only') AS default_read_only,
    current_setting('synchronous_commit') AS synchronous_commit`;

/** What a session found at its start. */
export interface SessionFacts {
  /** The schema that has the tables of this service, or gets them. */
  readonly schema: string;
  /** Schemas that each have tables of this service, if the search path chooses none of them. */
  readonly ambiguous: readonly string[] | null;
  /** Why the server or the database rejects writes. */
  readonly readOnly: string | null;
}

interface SessionRow {
  readonly marker: string | null;
}

interface FactRow extends SessionRow {
  readonly schema: string;
  readonly ambiguous: readonly string[] | null;
  readonly read_only: string | null;
  readonly server_version_num: string;
  readonly encoding: string;
  readonly default_read_only: string;
  readonly synchronous_commit: string;
}

/** Sends statements on the connection of the session. Several ones have several results. */
type Send = <Row extends object>(text: string) => Promise<pg.QueryResult<Row> | pg.QueryResult<Row>[]>;

/** The settings of one connection. They are in force from `begin` on, and `check` sets them again. */
export class Session {
  readonly #send: Send;
  /** Of this connection alone. */
  readonly #marker = randomBytes(9).toString("hex");
  #settings: SessionSettings;

  /** @param settings besides those of all sessions, or instead of them */
  constructor(send: Send, settings: SessionSettings) {
    this.#send = send;
    this.#settings = { ...FIXED_SETTINGS, ...settings };
  }

  /**
   * Removes what another client left, and sets the settings. Startup parameters would do the same in fewer round trips,
   * but poolers reject them.
   *
   * @throws UnusableDatabase if the server is too old, or the database has another encoding than UTF8; the driver's error
   */
  async begin(): Promise<SessionFacts> {
    const found = await this.#ask<FactRow>(`${CLEAN}; ${FACTS}`);
    assertSupported(Number(found.server_version_num), found.encoding);
    const { schema, ambiguous, read_only, default_read_only, synchronous_commit } = found;
    this.#settings = {
      search_path: `${pg.escapeIdentifier(schema)}, pg_temp`,
      // Acknowledged changes are on disk. Another value than off is the choice of the operator.
      synchronous_commit: synchronous_commit === "off" ? "on" : synchronous_commit,
      // A database or a server that is read-only stays so: operators stop writes by it, and providers protect full disks.
      default_transaction_read_only: read_only === null ? "off" : default_read_only,
      ...this.#settings,
    };
    await this.#ask(settingsQuery({ ...this.#settings, [MARKER]: this.#marker }));
    return { schema, ambiguous, readOnly: read_only };
  }

  /**
   * Sets the settings again, and tells whether the connection still has its session. If not, something between the
   * service and PostgreSQL gave it another one: prepared statements, locks and notifications are lost.
   */
  async check(): Promise<boolean> {
    const { marker } = await this.#ask<SessionRow>(settingsQuery(this.#settings));
    return marker === this.#marker;
  }

  async #ask<Row extends object>(text: string): Promise<Row> {
    const result = await this.#send<Row>(text);
    const row = (Array.isArray(result) ? result.at(-1) : result)?.rows[0];
    if (row === undefined) throw new TypeError("the settings of a session returned no row");
    return row;
  }
}

/** The first column is read before the settings are set. */
function settingsQuery(settings: SessionSettings): string {
  const values = Object.entries(settings).map(
    ([name, value]) => `(${pg.escapeLiteral(name)}, ${pg.escapeLiteral(value)})`,
  );
  return `
    SELECT current_setting('${MARKER}', true) AS marker, (
      SELECT count(set_config(s.name, s.value, false)) FROM (VALUES ${values.join(", ")}) s (name, value)
      WHERE s.name LIKE '%.%' OR current_setting(s.name, true) IS NOT NULL
    ) AS settings`;
}

/** The oldest supported version of PostgreSQL: 15. */
const OLDEST_SERVER = 150_000;

function assertSupported(version: number, encoding: string): void {
  if (version < OLDEST_SERVER) {
    throw new UnusableDatabase(
      `PostgreSQL ${Math.floor(version / 10_000)} is too old. Use 15 or newer (tested up to 18).`,
    );
  }
  if (encoding === "UTF8") return;
  throw new UnusableDatabase(
    `The database has the encoding ${encoding}, which cannot hold every name: create one with ENCODING 'UTF8' TEMPLATE template0, and set DATABASE_URL to it.`,
  );
}
