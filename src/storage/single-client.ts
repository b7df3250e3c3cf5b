import { columnTypes } from "./column-types.ts";
import { HANDSHAKE_MS, newSocket } from "./connections.ts";
import { DatabaseHosts, readOnlyError, writableUrl } from "./database-hosts.ts";
import { ServiceClient, type ServiceClientOptions } from "./service-client.ts";
import type { SessionSettings } from "./session.ts";
import { UnusableDatabase } from "./unusable-database.ts";

/** What a command of the command line works with: one connection. */
export interface DatabaseCommand {
  readonly client: ServiceClient;
  /** The URL of the writable host. */
  readonly url: string;
  /** For further connections. */
  readonly session: ServiceClientOptions;
}

/**
 * Runs `work` on one connection, after it has checked that the service can use the database.
 *
 * @param settings besides those of all sessions, or instead of them
 * @throws UnusableDatabase if it cannot; the driver's errors
 */
export async function withDatabase<Result>(
  databaseUrl: string,
  work: (command: DatabaseCommand) => Promise<Result>,
  settings: SessionSettings = {},
): Promise<Result> {
  const url = await writableUrl(databaseUrl);
  const session = { hosts: new DatabaseHosts(url), settings };
  const open = (): ServiceClient =>
    new ServiceClient(
      {
        connectionString: url,
        application_name: "harborforge-agents migrate",
        types: columnTypes,
        connectionTimeoutMillis: HANDSHAKE_MS,
        stream: newSocket,
      },
      session,
    );
  const client = open();
  try {
    await client.connect();
    assertWritable(client);
    await assertOwnSession(client, open());
    return await work({ client, url, session });
  } finally {
    await client.end();
  }
}

function assertWritable({ facts }: ServiceClient): void {
  const { ambiguous, readOnly } = facts;
  if (readOnly !== null) throw readOnlyError(readOnly);
  if (ambiguous === null) return;
  throw new UnusableDatabase(
    `The schemas ${ambiguous.join(" and ")} of the database each have the tables of this service: choose one of them with ALTER ROLE … SET search_path.`,
  );
}

/**
 * The order in which the two connections are asked. Poolers lend the connection that was used last, or the next one in
 * turn. In both cases one of the two connections gets another session here, unless sessions are lent for good.
 */
const ROUNDS = ["first", "first", "second", "second", "first", "second"] as const;

async function assertOwnSession(first: ServiceClient, second: ServiceClient): Promise<void> {
  try {
    await second.connect();
    for (const round of ROUNDS) {
      if (await (round === "first" ? first : second).hasItsSession()) continue;
      throw new UnusableDatabase(
        "DATABASE_URL names a connection pooler (such as PgBouncer) in transaction or statement mode, and this service needs sessions of its own: set pool_mode = session for this database in the pooler, or set DATABASE_URL to PostgreSQL itself.",
      );
    }
  } finally {
    await second.end();
  }
}
