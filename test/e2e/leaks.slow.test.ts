import { Client } from "pg";
import { describe, expect, test, vi } from "vitest";
import { startFuzzedService } from "../fuzz/fuzzed-service.ts";
import { createTestDatabase } from "../support/cluster.ts";
import { envelope, http1, http2Call, http2Connect, type RawResponse } from "../support/rpc-raw.ts";

const SERVICE = "/harborforge.agents.v1.";

/** Text that no response and no log line may contain: words of PostgreSQL, statements, stacks, paths. */
const FORBIDDEN: readonly RegExp[] = [
  /relation "/,
  /violates/,
  /terminating connection/,
  /does not exist/,
  /PL\/pgSQL/i,
  /\bselect\b.+\bfrom\b/i,
  /\binsert into\b/i,
  /\bupdate\b.+\bset\b/i,
  /\n\s+at |\\n\s+at /,
  /node_modules/,
  /file:\/\//,
  /word-of-a-trigger/,
  /sesame/,
];

/** All content of a response, decoded. */
function textOf({ headers, trailers, body }: RawResponse): string {
  const parts = [body.toString("utf8"), ...[...headers, ...trailers].map(([name, value]) => `${name}: ${value}`)];
  for (const [, value] of [...headers, ...trailers]) {
    parts.push(decodeURIComponent(value.replaceAll(/%(?![0-9a-f]{2})/gi, "")), Buffer.from(value, "base64").toString());
  }
  for (const [encoded] of body.toString().matchAll(/[A-Za-z0-9+/]{40,}/g)) {
    parts.push(Buffer.from(encoded, "base64").toString());
  }
  return parts.join("\n");
}

describe("neither responses nor the log contain", () => {
  test("messages of PostgreSQL, statements, stacks and credentials, whatever fails", { timeout: 120_000 }, async () => {
    await using database = await createTestDatabase();
    const url = new URL(database.url);
    await using service = await startFuzzedService(database.url);
    const admin = new Client({ connectionString: database.url });
    await admin.connect();
    const answers: string[] = [];
    const codes = new Set<string>();

    /** A call in JSON over HTTP/1.1, and the same without a message over gRPC at the other listener. */
    async function call(method: string, message: object): Promise<number> {
      const secret = { authorization: "Bearer sesame", cookie: "id=sesame", "x-api-key": "sesame" };
      const json = await http1(service.listeners.http, `${SERVICE}${method}`, {
        headers: { "content-type": "application/json", ...secret },
        body: JSON.stringify(message),
      });
      answers.push(textOf(json));
      codes.add(String(JSON.parse(json.body.toString()).code ?? "ok"));
      const session = await http2Connect(service.listeners.grpc);
      const { response, stream } = http2Call(session, `${SERVICE}${method}`, {
        "content-type": "application/grpc",
        ...secret,
      });
      stream.end(envelope(""));
      answers.push(textOf(await response));
      session.destroy();
      return json.status;
    }
    const user = (username: string) =>
      call("UserService/CreateUser", { username, agentId: username, clawIdentifier: "c" });

    try {
      expect(await user("ada")).toBe(200);
      expect(await user("ada")).toBe(409);
      // A rule of the database that the service does not know.
      await admin.query("alter table users add constraint no_bob check (username <> 'bob')");
      await user("bob");
      // A fault within a statement.
      await admin.query(`create function fail() returns trigger language plpgsql as
        $$ begin raise exception 'word-of-a-trigger' using detail = 'more', hint = 'and more'; end $$`);
      await admin.query("create trigger fail before update on users for each row execute function fail()");
      await call("UserService/UpdateUser", { id: "1", displayName: "Ada" });
      // Connections that are cut during any operation.
      const cut =
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()";
      for (let round = 0; round < 5; round += 1) {
        await Promise.all([admin.query(cut), call("AgentService/ListAgents", {}), user(`after-${round}`)]);
      }
      // A table that is gone.
      await vi.waitFor(async () => expect(await call("UserService/GetUser", { username: "ada" })).toBe(200), {
        timeout: 30_000,
        interval: 100,
      });
      await admin.query("alter table users rename to gone");
      await call("UserService/GetUser", { username: "ada" });
      await call("UserService/ListUsers", {});
      await admin.query("alter table agent_liveness rename to gone_too");
      await call("AgentService/SendHeartbeat", { beats: [{ agentId: "ada" }] });
      await call("AgentService/GetFleet", {});
    } finally {
      await admin.end();
    }

    expect([...codes]).toEqual(expect.arrayContaining(["ok", "already_exists", "internal"]));
    expect(service.log).toContain('"code":"42P01"');
    const everything = [...answers, service.log];
    for (const text of everything) {
      for (const word of FORBIDDEN) expect(text).not.toMatch(word);
      if (url.password !== "") expect(text).not.toContain(url.password);
    }
  });
});
