import { existsSync } from "node:fs";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { type CliResult, runCli } from "../support/cli.ts";
import { execFile } from "../support/owned-process.ts";
import { checkout } from "../support/program.ts";
import { unique, useService } from "../support/service.ts";

const service = useService();

function cli(...args: string[]): Promise<CliResult> {
  return runCli(args, { HARBORFORGE_ADDRESS: service().addresses.grpc });
}

/** A command that succeeds, with nothing on standard error. */
async function said(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await cli(...args);
  expect({ code, stderr }, args.join(" ")).toEqual({ code: 0, stderr: "" });
  return stdout;
}

async function json(...args: string[]): Promise<unknown> {
  return JSON.parse(await said(...args, "--output", "json"));
}

async function lines(...args: string[]): Promise<unknown[]> {
  const text = await said(...args, "--output", "jsonl");
  return text.split("\n").flatMap((line): unknown[] => (line === "" ? [] : [JSON.parse(line)]));
}

/** A user with an agent on a claw of its own. */
async function newAgent(): Promise<{ username: string; agentId: string; claw: string; userId: string }> {
  const username = unique("user");
  const agentId = unique("agent");
  const claw = unique("claw");
  const made = await json("users", "create", username, "--agent-id", agentId, "--claw", claw);
  return { username, agentId, claw, userId: String(Object(made).user.id) };
}

/** `22:30:05 (12 s ago)`, at any time. */
const WHEN = String.raw`(\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d \((now|\d+ (s|min) ago|in \d+ (s|min))\)`;

describe("users", () => {
  test("create makes a user, and an agent if one is named", async () => {
    const username = unique("ada");
    const alone = await said("users", "create", username, "--display-name", "Ada L.", "--email", `${username}@x.org`);
    expect(alone).toMatch(
      new RegExp(`^id +\\d+\nusername +${username}\nname +Ada L\\.\nemail +${username}@x\\.org\ncreated +${WHEN}\n$`),
    );
    const agentId = unique("bob");
    const [both] = await lines("users", "create", unique("bob"), "--agent-id", agentId, "--claw", "claw-1");
    expect(both).toMatchObject({ user: { agentId }, agent: { agentId, clawIdentifier: "claw-1" } });
    const table = await said("users", "create", unique("cy"), "--agent-id", unique("cy"), "--claw", "claw-1");
    expect(table).toMatch(new RegExp(`agent +cy-\\S+\nclaw +claw-1\nstatus +idle\nlease ends +${WHEN}\n$`));
  });

  test("get finds by number, by name and by agent", async () => {
    const { username, userId, agentId } = await newAgent();
    const expected = { id: userId, username, agentId };
    expect(await json("users", "get", userId)).toMatchObject(expected);
    expect(await json("users", "get", username)).toMatchObject(expected);
    expect(await lines("users", "get", agentId, "--by", "agent-id")).toMatchObject([expected]);
    expect(await said("users", "get", username)).toContain(`agent     ${agentId}\n`);
    const digits = String(Math.floor(Math.random() * 1e15) + 1e15);
    await said("users", "create", digits);
    expect(await json("users", "get", digits, "--by", "username")).toMatchObject({ username: digits });
  });

  test("update changes the named fields, also the username", async () => {
    const { username, userId } = await newAgent();
    const email = `${username}@x.org`;
    expect(await json("users", "update", username, "--email", email)).toMatchObject({ id: userId, email });
    expect(await json("users", "update", userId, "--display-name", "Z")).toMatchObject({ displayName: "Z", email });
    expect(await json("users", "update", userId, "--email", "")).not.toHaveProperty("email");
    const nothing = await cli("users", "update", userId);
    expect(nothing).toMatchObject({ code: 2, stdout: "" });
    expect(nothing.stderr).toBe("error: Nothing to change: use --email or --display-name.\n");
  });

  test("delete deletes the agent, too", async () => {
    const { username, agentId } = await newAgent();
    expect(await said("users", "delete", username)).toBe(`Deleted user ${username}.\n`);
    expect((await cli("agents", "get", agentId)).code).toBe(4);
    const other = await newAgent();
    expect(await json("users", "delete", other.userId)).toEqual({});
  });

  test("list prints all users, page by page, as a table, a document or lines", async () => {
    const one = await newAgent();
    const table = await said("users", "list");
    expect(table.split("\n")[0]).toMatch(/^ *ID {2}USERNAME +NAME +AGENT +EMAIL +CREATED$/);
    expect(table).toMatch(
      new RegExp(`^ *${one.userId} {2}${one.username} +${one.username} +${one.agentId} .*${WHEN}$`, "m"),
    );
    const document: unknown = await json("users", "list");
    const all = await lines("users", "list");
    expect(Object(document).users).toEqual(all);
    expect(document).not.toHaveProperty("nextPageToken");

    const first: unknown = await json("users", "list", "--limit", "2");
    const { nextPageToken } = Object(first);
    const rest = await lines("users", "list", "--page-token", nextPageToken);
    expect([...Object(first).users, ...rest]).toEqual(all);
    const cut = await cli("users", "list", "--limit", "1");
    expect(cut.stderr).toMatch(/^There are more\. Continue with --page-token \S+, or raise --limit\.\n$/);
    expect(cut.stdout.trimEnd().split("\n")).toHaveLength(2);
  });
});

describe("agents", () => {
  test("create binds an agent to a user", async () => {
    const made: unknown = await json("users", "create", unique("user"));
    const agentId = unique("agent");
    const { id } = Object(made).user;
    expect(await json("agents", "create", agentId, "--user", id, "--claw", "claw-1")).toMatchObject({
      agentId,
      userId: id,
      status: "AGENT_STATUS_IDLE",
    });
    expect(await said("agents", "get", agentId)).toMatch(
      new RegExp(`^agent +${agentId}\nclaw +claw-1\nstatus +idle\n`),
    );
    expect(await json("agents", "get", "--user", id)).toMatchObject({ agentId });
    expect((await cli("agents", "get")).stderr).toBe("error: Name the agent either by its id or with --user.\n");
  });

  test("list filters by agent, user, claw and status", async () => {
    const one = await newAgent();
    const other = await newAgent();
    await said("agents", "status", other.agentId, "busy");
    const both = ["agents", "list", "--claw", one.claw, "--claw", other.claw];
    const table = (await said(...both)).split("\n");
    expect(table[0]).toMatch(/^AGENT +CLAW +STATUS +SINCE +RECOVERY +HEARTBEAT +USER$/);
    expect(table[2]).toMatch(new RegExp(`^${other.agentId}  ${other.claw}  busy +${WHEN} +${other.userId}$`));
    expect(await lines(...both)).toMatchObject([{ agentId: one.agentId }, { agentId: other.agentId }]);
    expect(await lines(...both, "--status", "busy")).toMatchObject([{ agentId: other.agentId }]);
    expect(await lines("agents", "list", "--user", one.userId)).toMatchObject([{ agentId: one.agentId }]);
    const document: unknown = await json("agents", "list", "--agent", one.agentId);
    expect(document).toMatchObject({ agents: [{ agentId: one.agentId }], revision: expect.stringMatching(/^\d+$/) });
    const none = await cli("agents", "list", "--claw", unique("nowhere"));
    expect(none).toEqual({ code: 0, stdout: "", stderr: "There are no such agents.\n" });
    expect(await json("agents", "list", "--claw", unique("nowhere"))).toMatchObject({ agents: [] });
  });

  test("status sets a status, and prints the time of recovery", async () => {
    const { agentId } = await newAgent();
    const exhausted = await said(
      "agents",
      "status",
      agentId,
      "exhausted",
      "--reason",
      "rate_limit",
      "--retry-after",
      "4m",
    );
    expect(exhausted).toMatch(/^status +exhausted$/m);
    expect(exhausted).toMatch(/^exhausted +rate limit$/m);
    expect(exhausted).toMatch(/^recovery +(\S+ )?\d\d:\d\d:\d\d \(in 4 min\)$/m);
    const { revision } = Object(await json("agents", "get", agentId));
    const recovered = await json("agents", "status", agentId, "idle", "--expected-revision", revision);
    expect(recovered).toMatchObject({ status: "AGENT_STATUS_IDLE" });
    const until = "2099-01-01T00:00:00Z";
    const far = await cli("agents", "status", agentId, "exhausted", "--reason", "billing", "--recovery-at", until);
    expect(far).toMatchObject({ code: 2, stdout: "" });
    expect(far.stderr).toMatch(/^error: INVALID_FIELD: .*recovery/);
  });

  test("move, transitions and delete print the results", async () => {
    const { agentId, claw } = await newAgent();
    const elsewhere = unique("claw");
    expect(await json("agents", "move", agentId, elsewhere)).toMatchObject({ clawIdentifier: elsewhere });
    await said("agents", "status", agentId, "exhausted", "--reason", "billing");
    expect(await said("agents", "delete", agentId)).toMatch(
      new RegExp(`^Deleted agent ${agentId} at revision \\d+\\.\n$`),
    );
    const causes = ["CREATED", "MOVED", "SERVICE", "DELETED"].map((cause) => ({ cause: `TRANSITION_CAUSE_${cause}` }));
    expect(await lines("agents", "transitions", agentId, "--oldest-first")).toMatchObject(causes);
    expect(await lines("agents", "transitions", agentId, "--limit", "1")).toMatchObject([causes[3]]);
    const table = await said("agents", "transitions", agentId);
    expect(table).toMatch(/^ *REVISION {2}TIME +AGENT +FROM +TO +CAUSE +DETAILS +ACTOR\n/);
    expect(table).toMatch(new RegExp(`${agentId}  idle +exhausted +service +billing until \\S.* \\(in \\d+ min\\) `));
    expect(table).toMatch(new RegExp(`idle +idle +moved +${claw} -> ${elsewhere} `));
    const after: unknown = await json("agents", "transitions", agentId, "--oldest-first", "--limit", "2");
    const { transitions } = Object(after);
    const revision = String(transitions[1].revision);
    expect(await lines("agents", "transitions", agentId, "--oldest-first", "--after", revision)).toMatchObject(
      causes.slice(2),
    );
  });
});

test("fleet counts by status and claw, with bars, brake and pace", async () => {
  const claw = unique("claw");
  for (const status of ["idle", "busy", "busy"]) {
    const agentId = unique("agent");
    await said("users", "create", unique("user"), "--agent-id", agentId, "--claw", claw);
    if (status !== "idle") await said("agents", "status", agentId, status);
  }
  const text = await said("fleet", "--claw", claw);
  expect(text).toMatch(/^3 agents on 1 claw\n/);
  expect(text).toMatch(/^idle +1 {2}█+ +33 %$/m);
  expect(text).toMatch(/^busy +2 {2}█+ +67 %$/m);
  expect(text).toMatch(/^Brake: released$/m);
  expect(text).toMatch(/^Pace: a heartbeat every \S+, leases of 30s$/m);
  expect(text).toMatch(
    new RegExp(`^CLAW +IDLE +ON_CALL +BUSY +EXHAUSTED +OFFLINE +ALL\n${claw} +1 +0 +2 +0 +0 +3$`, "m"),
  );
  const document: unknown = await json("fleet", "--claw", claw);
  expect(document).toMatchObject({ claws: [{ clawIdentifier: claw }], leaseTtl: "30s" });
  expect(await lines("fleet", "--claw", claw)).toMatchObject([{ claws: [{ clawIdentifier: claw }] }]);
});

test("a suspect agent is suspect in lists, in its facts and in the counts of the fleet, and cannot be claimed", async () => {
  const { agentId, claw } = await newAgent();
  try {
    // The brake stays engaged while so many claws seem to be silent.
    await service().query(
      "INSERT INTO claw_incidents (claw_identifier, incident_id, began_at, last_at) SELECT 'silent ' || n, n, now() + interval '1 hour', now() FROM generate_series(1, 99) n",
    );
    await service().query("UPDATE fleet_state SET brake_engaged_at = clock_timestamp()");
    await service().query(
      "UPDATE agent_liveness SET lease_expires_at = clock_timestamp() - interval '1 second' WHERE agent = (SELECT id FROM agents WHERE agent_id = $1)",
      agentId,
    );
    expect(await said("agents", "list", "--claw", claw)).toMatch(new RegExp(`^${agentId} +${claw} +suspect `, "m"));
    expect(await said("agents", "get", agentId)).toMatch(/^status +suspect \(last idle\)$/m);
    const fleet = await said("fleet", "--claw", claw);
    expect(fleet).toMatch(/^idle +0 +0 %$/m);
    expect(fleet).toMatch(/^suspect +1 {2}█+ +100 %$/m);
    expect(fleet).toMatch(new RegExp(`^${claw} +0 +0 +0 +0 +0 +1 +1$`, "m"));
    expect(await json("fleet", "--claw", claw)).toMatchObject({ statuses: [{ count: "1", suspect: "1" }] });
    const claimed = await cli("agents", "status", agentId, "busy");
    expect(claimed.code).not.toBe(0);
    expect(claimed.stderr).toContain("AGENT_OFFLINE");
    expect(claimed.stderr).toContain("suspect since");
  } finally {
    await service().query("DELETE FROM claw_incidents");
    await service().query("UPDATE fleet_state SET brake_engaged_at = NULL");
  }
});

describe("failures are one line with the reason, and an exit code", () => {
  test.each([
    [["agents", "get", "nobody"], 4, /^error: AGENT_NOT_FOUND: .+ See "harborforge-agents agents list"\.\n$/],
    [["users", "get", "0"], 2, /^error: INVALID_FIELD: .+\n$/],
    [["users", "list", "--page-token", "broken"], 2, /^error: INVALID_PAGE_TOKEN: .+\n$/],
    [
      ["agents", "list", "--status", "asleep"],
      2,
      /^error: option '--status <status>' argument 'asleep' is invalid\. .+\n$/,
    ],
    [["agents", "lst"], 2, /^error: unknown command 'lst' \(Did you mean list\?\) \(Try --help\.\)\n$/],
    [["users", "get", "ada", "--timeout", "soon"], 2, /^error: option '--timeout <time>' .+\n$/],
    [["users", "create"], 2, /^error: missing required argument 'username' \(Try --help\.\)\n$/],
    [["users", "create", "x", "--claw", "y"], 2, /^error: --agent-id and --claw must be used together\.\n$/],
    [
      ["fleet", "--profile", "prod"],
      2,
      /^error: The profile "prod" does not exist, because the file \S+profiles\.json does not exist\.\n$/,
    ],
    [
      ["fleet", "--address", "127.0.0.1:1"],
      3,
      /^error: The service at http:\/\/127\.0\.0\.1:1 is unreachable .+--address\.\n$/,
    ],
    [["agents", "\u001b[2J\u202e"], 2, /^error: unknown command '\\u\{1b\}\[2J\\u\{202e\}' .+\n$/],
  ] as const)("%j exits with %i", async (args, code, stderr) => {
    const result = await cli(...args);
    expect(result).toMatchObject({ code, stdout: "" });
    expect(result.stderr).toMatch(stderr);
  });

  test("a conflict exits with 5", async () => {
    const { username, agentId } = await newAgent();
    const taken = await cli("users", "create", username);
    expect(taken).toMatchObject({
      code: 5,
      stdout: "",
      stderr: expect.stringMatching(/^error: USERNAME_TAKEN: .+\n$/),
    });
    const changed = await cli("agents", "status", agentId, "busy", "--expected-revision", "1");
    expect(changed).toMatchObject({ code: 5, stderr: expect.stringMatching(/^error: REVISION_MISMATCH: .+\n$/) });
    await said("agents", "status", agentId, "exhausted", "--reason", "billing");
    const exhausted = await cli("agents", "status", agentId, "busy");
    expect(exhausted).toMatchObject({ code: 5, stderr: expect.stringMatching(/^error: AGENT_EXHAUSTED: .+\n$/) });
  });

  test.skipIf(!existsSync("/dev/full"))(
    "a failed write of the output is distinguished from a closed reader",
    async () => {
      await newAgent();
      const ended = promisify(execFile)(
        "/bin/sh",
        ["-c", `"${process.execPath}" src/main.ts agents list --limit 1 -o jsonl >/dev/full`],
        { cwd: checkout, env: { ...process.env, HARBORFORGE_ADDRESS: service().addresses.grpc } },
      );
      await expect(ended).rejects.toMatchObject({
        code: 1,
        stderr: expect.stringMatching(/^error: Writing the output failed: ENOSPC.+$/m),
      });
    },
  );

  test("the wrong listener and another service are distinguished from an unavailable one", async () => {
    const http = await cli("fleet", "--address", service().addresses.http);
    expect(http.code).toBe(0);
    const database = new URL(service().databaseUrl);
    const wrong = await cli("fleet", "--address", `127.0.0.1:${database.port}`, "--timeout", "2s");
    expect(wrong).toMatchObject({ stdout: "" });
    expect(wrong.stderr).toMatch(/^error: .+--(address|timeout)\.\n$/);
    expect([1, 3]).toContain(wrong.code);
  });
});

test("prints names with control characters escaped", async () => {
  const username = `${unique("evil")}\u202e`;
  const displayName = `\u2066${unique("name")}漢字 👩‍👩‍👧`;
  const agentId = unique("agent");
  const claw = `claw\u200b${unique("x")}`;
  await said("users", "create", username, "--display-name", displayName, "--agent-id", agentId, "--claw", claw);
  const user = await said("users", "get", username);
  expect(user).toContain(`${username.slice(0, -1)}\\u{202e}\n`);
  expect(user).toContain(`\\u{2066}${displayName.slice(1)}\n`);
  const one = await said("users", "get", username, "-o", "json");
  expect(one).toContain("\\u202e");
  expect(one).not.toContain("\u202e");
  expect(JSON.parse(one)).toMatchObject({ username, displayName });
  expect(await said("agents", "get", agentId)).toContain("claw\\u{200b}x-");
  expect(await said("fleet", "--claw", claw)).toContain("claw\\u{200b}x-");
});
