import { readdirSync, readFileSync } from "node:fs";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Agent } from "../../src/domain/agent.ts";
import { namedQuery } from "../../src/storage/queries.ts";
import { sweepRequestIds } from "../../src/storage/request-answers.ts";
import { createEmptyDatabase } from "../support/cluster.ts";
import { by, createTestStorage, openStorage, refused, type Storage } from "../support/storage.ts";

const MIGRATIONS = new URL("../../migrations/", import.meta.url);
/** The last migration of release 0.1. */
const RELEASED = 4;

let storage: Awaited<ReturnType<typeof createTestStorage>>;
beforeAll(async () => {
  storage = await createTestStorage();
});
afterAll(async () => {
  await storage[Symbol.asyncDispose]();
});

let made = 0;

async function createAgent({ users }: Pick<Storage, "users">): Promise<Agent> {
  const agentId = `agent-${++made}`;
  const user = { username: agentId, email: null, displayName: "", agent: { agentId, clawIdentifier: "claw-0" } };
  const { agent } = await users.create(user, by());
  if (agent === undefined) throw new TypeError("an agent was asked for");
  return agent;
}

describe("a request_id", () => {
  test("of two principals identifies two requests, also in one group", async () => {
    const [one, other] = [await createAgent(storage), await createAgent(storage)];
    const before = storage.commits.length;
    const [first, second] = await Promise.all([
      storage.agents.move(one.agentId, "claw-1", by("shared", "content", "service:one")),
      storage.agents.move(other.agentId, "claw-1", by("shared", "content", "service:other")),
    ]);
    expect(storage.commits.length - before).toBe(1);
    expect([first.agentId, second.agentId]).toEqual([one.agentId, other.agentId]);
    expect(await storage.agents.move(one.agentId, "claw-1", by("shared", "content", "service:one"))).toEqual(first);
    expect(await storage.agents.move(other.agentId, "claw-1", by("shared", "content", "service:other"))).toEqual(
      second,
    );
  });

  test("is never confused between principals, however names and ids concatenate", async () => {
    const { agentId } = await createAgent(storage);
    await storage.agents.move(agentId, "claw-1", by("b:c", "content", "service:a"));
    const moved = await storage.agents.move(agentId, "claw-2", by("c", "other content", "service:a:b"));
    expect(moved.clawIdentifier).toBe("claw-2");
  });

  test("is swept after 24 hours, and the same one of another principal is kept", async () => {
    const { userId } = await createAgent(storage);
    await storage.users.update(userId, { displayName: "old" }, by("swept", "content", "admin:old"));
    await storage.users.update(userId, { displayName: "new" }, by("swept", "content", "admin:new"));
    await storage.query(
      "UPDATE request_ids SET created_at = created_at - interval '25 hours' WHERE request_id = 'swept' AND principal = 'admin:old'",
    );
    await sweepRequestIds(storage.database);
    expect(await storage.query("SELECT principal FROM request_ids WHERE request_id = 'swept'")).toEqual([
      { principal: "admin:new" },
    ]);
  });
});

/** The statements of release 0.1, on a connection that it opened before the upgrade. */
class OldReplica implements AsyncDisposable {
  readonly #client: pg.Client;

  private constructor(client: pg.Client) {
    this.#client = client;
  }

  static async open(connectionString: string): Promise<OldReplica> {
    const client = new pg.Client({ connectionString });
    await client.connect();
    return new OldReplica(client);
  }

  /** Moves an agent, as the committer of 0.1 does. */
  async move(agentId: string, clawIdentifier: string, requestId: string): Promise<string> {
    const { rows } = await this.#client.query("SELECT a.id, a.revision, a.status FROM agents a WHERE a.agent_id = $1", [
      agentId,
    ]);
    const { id, revision: expectRevision, status } = rows[0];
    const member = {
      ...{ n: 0, kind: "update", actor: "service:old", request_id: requestId, fingerprint: "content", quiet: false },
      ...{ id, expect_revision: expectRevision, cause: "moved", status, claw_identifier: clawIdentifier },
      ...{ exhaustion: "keep", hold: "keep", lease: "keep", heartbeat: false, lease_ended: false },
    };
    const result = await this.#client.query<{ outcome: string }>({
      ...namedQuery("commit-changes"),
      values: [1, JSON.stringify([member])],
    });
    return result.rows[0]?.outcome ?? "none";
  }

  /** Takes a request_id, as the changes of users in 0.1 do. */
  async claim(requestId: string, content = "content"): Promise<boolean> {
    const { rows } = await this.#client.query("SELECT claim_request_id($1, $2) AS claimed", [requestId, content]);
    return rows[0].claimed;
  }

  async answer(requestId: string): Promise<readonly { fingerprint: string }[]> {
    const { rows } = await this.#client.query(
      "SELECT fingerprint FROM request_ids WHERE request_id = $1 AND created_at > clock_timestamp() - interval '24 hours'",
      [requestId],
    );
    return rows;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client.end();
  }
}

async function applyMigrations(connectionString: string, chosen: (number: number) => boolean): Promise<void> {
  const client = new pg.Client({ connectionString });
  await client.connect();
  for (const file of readdirSync(MIGRATIONS).sort()) {
    if (!chosen(Number(file.slice(0, 4)))) continue;
    await client.query(`BEGIN; ${readFileSync(new URL(file, MIGRATIONS), "utf8")}; COMMIT`);
  }
  await client.end();
}

test("stored responses and replicas of release 0.1 work beside the new ones", async () => {
  await using undo = new AsyncDisposableStack();
  const database = undo.use(await createEmptyDatabase());
  await applyMigrations(database.url, (number) => number <= RELEASED);
  const old = undo.use(await OldReplica.open(database.url));
  const client = undo.use(await OldReplica.open(database.url));
  const setup = new pg.Client({ connectionString: database.url });
  await setup.connect();
  for (const name of ["kept", "later"]) {
    await setup.query(
      `WITH u AS (INSERT INTO users (username) VALUES ($1) RETURNING id), a AS (
         INSERT INTO agents (user_id, agent_id, claw_identifier, created_at, status_changed_at, revision)
         SELECT u.id, $1, 'claw-0', now(), now(), 1 FROM u RETURNING id)
       INSERT INTO agent_liveness (agent, revision, epoch) SELECT id, 1, 1 FROM a`,
      [name],
    );
  }
  await setup.end();
  expect(await old.move("kept", "claw-1", "before")).toBe("committed");

  await applyMigrations(database.url, (number) => number > RELEASED);
  const fresh = undo.use(openStorage(database.url, 2));
  // Stored by 0.1: it applies to every principal, and a second request with it is rejected.
  for (const principal of ["service:one", "service:other"]) {
    expect((await fresh.agents.move("kept", "claw-1", by("before", "content", principal))).clawIdentifier).toBe(
      "claw-1",
    );
    await expect(fresh.agents.move("kept", "claw-9", by("before", "other content", principal))).rejects.toMatchObject(
      refused("REQUEST_ID_REUSED", { requestId: "before" }),
    );
  }
  const { id: userId } = await fresh.users.get({ username: "later" });
  await expect(fresh.users.update(userId, { displayName: "" }, by("before", "other content"))).rejects.toMatchObject(
    refused("REQUEST_ID_REUSED"),
  );

  // 0.1 continues on its earlier connections, and finds the responses of the new release.
  expect(await old.move("later", "claw-1", "meanwhile")).toBe("committed");
  expect((await fresh.agents.move("later", "claw-1", by("meanwhile"))).clawIdentifier).toBe("claw-1");
  await fresh.agents.move("later", "claw-2", by("by the new one"));
  expect(await client.claim("by the new one")).toBe(false);
  expect(await client.answer("by the new one")).toEqual([{ fingerprint: "content" }]);
  expect(await old.move("later", "claw-3", "by the new one")).toBe("stale");
  expect(await client.claim("of nobody")).toBe(true);
  await expect(fresh.users.update(userId, { displayName: "" }, by("of nobody", "other content"))).rejects.toMatchObject(
    refused("REQUEST_ID_REUSED"),
  );
});
