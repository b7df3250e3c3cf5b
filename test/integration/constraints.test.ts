import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { by, createTestStorage } from "../support/storage.ts";

let storage: Awaited<ReturnType<typeof createTestStorage>>;
beforeAll(async () => {
  storage = await createTestStorage();
  const agent = { agentId: "scribe-7", clawIdentifier: "claw-1" };
  await storage.users.create({ username: "ada", email: "ada@example.com", displayName: "", agent }, by());
  await storage.users.create({ username: "grace", email: null, displayName: "", agent: undefined }, by());
});
afterAll(() => storage[Symbol.asyncDispose]());

/** A program without rules could write these rows: the database itself rejects them. */
function violated(constraint: string) {
  return { constraint };
}

describe("the constraints of users", () => {
  test.each([
    ["users_username_key", "('ada', NULL, '')"],
    ["users_email_key", "('other', 'ada@example.com', '')"],
    ["users_username_length", "('', NULL, '')"],
    ["users_username_length", "(repeat('é', 129), NULL, '')"],
    ["users_email_length", "('other', 'a@', '')"],
    ["users_email_length", "('other', repeat('x', 255), '')"],
    ["users_display_name_length", "('other', NULL, repeat('x', 257))"],
  ])("enforce %s: %s", async (constraint, values) => {
    const insert = storage.query(`INSERT INTO users (username, email, display_name) VALUES ${values}`);
    await expect(insert).rejects.toMatchObject(violated(constraint));
  });

  test("allow names of 128 characters, whatever their length in bytes", async () => {
    await storage.query("INSERT INTO users (username) VALUES (repeat('é', 128)), (repeat('𝄞', 128))");
    await storage.query("DELETE FROM users WHERE char_length(username) = 128");
  });

  test("forbid deletion of a user with an agent", async () => {
    await expect(storage.query("DELETE FROM users WHERE username = 'ada'")).rejects.toMatchObject(
      violated("agents_user_id_fkey"),
    );
  });
});

describe("the constraints of agents", () => {
  test.each([
    ["agents_user_id_key", "user_id = (SELECT id FROM users WHERE username = 'ada'), agent_id = 'other'"],
    ["agents_user_id_fkey", "user_id = 99999, agent_id = 'other'"],
    ["agents_agent_id_key", "agent_id = 'scribe-7'"],
    ["agents_agent_id_length", "agent_id = ''"],
    ["agents_agent_id_length", "agent_id = repeat('x', 129)"],
    ["agents_claw_identifier_length", "claw_identifier = ''"],
    ["agents_claw_identifier_length", "claw_identifier = repeat('x', 129)"],
  ])("enforce %s on insert: %s", async (constraint, assignments) => {
    const fields: Record<string, string> = {
      user_id: "(SELECT id FROM users WHERE username = 'grace')",
      agent_id: "'painter-1'",
      claw_identifier: "'claw-1'",
    };
    for (const assignment of assignments.split(/, (?=\w+ =)/)) {
      const [name = "", value = ""] = assignment.split(/ = (.*)/s);
      fields[name] = value;
    }
    const insert = storage.query(
      `INSERT INTO agents (${Object.keys(fields).join()}, created_at, status_changed_at, revision)
       VALUES (${Object.values(fields).join()}, now(), now(), 0)`,
    );
    await expect(insert).rejects.toMatchObject(violated(constraint));
  });

  const whole = "exhaust_reason = 'rate_limit', exhausted_at = now(), recovery_at = now()";
  test.each([
    ["agents_status_known", "status = 'asleep'"],
    ["agents_exhaust_reason_known", `${whole.replace("rate_limit", "tired")}, status = 'exhausted'`],
    ["agents_exhaustion_whole", "status = 'offline', exhausted_at = now(), recovery_at = now()"],
    ["agents_exhaustion_whole", "status = 'offline', exhaust_reason = 'billing'"],
    ["agents_exhaustion_fits_status", "status = 'exhausted'"],
    ["agents_exhaustion_fits_status", `status = 'busy', ${whole}`],
    ["agents_hold_whole", "hold_until = now()"],
  ])("enforce %s on update: %s", async (constraint, assignments) => {
    const update = storage.query(`UPDATE agents SET ${assignments} WHERE agent_id = 'scribe-7'`);
    await expect(update).rejects.toMatchObject(violated(constraint));
  });

  test("give each agent a liveness row of its own", async () => {
    await expect(
      storage.query("INSERT INTO agent_liveness (agent, revision, epoch) VALUES (99999, 0, 0)"),
    ).rejects.toMatchObject(violated("agent_liveness_agent_fkey"));
    await expect(storage.query("DELETE FROM agents")).rejects.toMatchObject(violated("agent_liveness_agent_fkey"));
  });
});

describe("the constraints of wakes", () => {
  const wake: Readonly<Record<string, string>> = {
    wake_id: "'slot-1'",
    agent: "1",
    agent_id: "'scribe-7'",
    state: "'queued'",
    claim: "'busy'",
    if_unavailable: "'queue'",
    answer_within_ms: "30000",
    max_offers: "3",
    expires_at: "now()",
    content_hash: "'x'",
    principal: "'service:calendar'",
    actor: "'service:calendar'",
    created_at: "now()",
    revision: "1",
  };
  test.each([
    ["wakes_wake_id_length", { wake_id: "''" }],
    ["wakes_state_known", { state: "'running'", ended_at: "now()" }],
    ["wakes_claim_known", { claim: "'idle'" }],
    ["wakes_if_unavailable_known", { if_unavailable: "'wait'" }],
    ["wakes_outcome_known", { outcome: "'maybe'" }],
    ["wakes_late_outcome_known", { late_outcome: "'maybe'" }],
    ["wakes_end_whole", { state: "'finished'" }],
    ["wakes_end_whole", { ended_at: "now()" }],
    ["wakes_offer_whole", { state: "'offered'" }],
    ["wakes_acceptance_whole", { accepted_at: "now()" }],
    ["wakes_accepted_by_a_process", { state: "'accepted'" }],
    ["wakes_payload_bound", { payload: "convert_to(repeat('x', 4097), 'UTF8')" }],
    ["wakes_no_payload_after_the_end", { state: "'lapsed'", ended_at: "now()", payload: "'x'" }],
    ["wakes_offers_bound", { offers: "4" }],
    ["wakes_offers_bound", { max_offers: "11" }],
  ])("enforce %s: %o", async (constraint, fields) => {
    const row: Readonly<Record<string, string>> = { ...wake, ...fields };
    const insert = storage.query(
      `INSERT INTO wakes (${Object.keys(row).join()}) VALUES (${Object.values(row).join()})`,
    );
    await expect(insert).rejects.toMatchObject(violated(constraint));
  });

  test("give a pause one target", async () => {
    for (const values of ["NULL, NULL, NULL", "1, 'scribe-7', 'claw-1'"]) {
      const insert = storage.query(
        `INSERT INTO wake_pauses (agent, agent_id, claw_identifier, since, note, actor) VALUES (${values}, now(), '', 'user:ada')`,
      );
      await expect(insert).rejects.toMatchObject(violated("wake_pauses_one_target"));
    }
  });
});

describe("the constraints of the log", () => {
  const transition = {
    cause: "'report'",
    from_status: "'idle'",
    to_status: "'busy'",
    from_claw_identifier: "'claw-1'",
    to_claw_identifier: "'claw-1'",
    exhaust_reason: "NULL",
  };
  test.each([
    ["agent_transitions_cause_known", { cause: "'magic'" }],
    ["agent_transitions_exhaustion_whole", { exhaust_reason: "'billing'" }],
    ["agent_transitions_before_and_after", { from_status: "NULL" }],
    ["agent_transitions_before_and_after", { to_claw_identifier: "NULL" }],
    ["agent_transitions_before_and_after", { cause: "'deleted'" }],
    ["agent_transitions_before_and_after", { cause: "'created'" }],
  ])("enforce %s: %o", async (constraint, fields) => {
    const row: Record<string, string> = { ...transition, ...fields };
    const insert = storage.query(
      `INSERT INTO agent_transitions (revision, agent, agent_id, user_id, actor, occurred_at, agent_created_at, status_changed_at, ${Object.keys(row).join()})
       SELECT revision + 1, 1, 'scribe-7', 1, 'server', now(), now(), now(), ${Object.values(row).join()} FROM revision_counter`,
    );
    await expect(insert).rejects.toMatchObject(violated(constraint));
  });

  test("accept a revision once", async () => {
    const insert = storage.query(
      "INSERT INTO agent_transitions SELECT * FROM agent_transitions ORDER BY revision DESC LIMIT 1",
    );
    await expect(insert).rejects.toMatchObject({ code: "23505" });
  });
});

test("there is one counter of revisions", async () => {
  await expect(storage.query("INSERT INTO revision_counter SELECT * FROM revision_counter")).rejects.toMatchObject(
    violated("revision_counter_pkey"),
  );
  await expect(storage.query("INSERT INTO revision_counter SELECT false, 0, 0, 0, 0, ''")).rejects.toMatchObject(
    violated("revision_counter_singleton_check"),
  );
});

test("a request_id has 1 to 64 characters", async () => {
  for (const id of ["", "x".repeat(65)]) {
    await expect(
      storage.query("INSERT INTO request_ids (request_id, fingerprint) VALUES ($1, '')", [id]),
    ).rejects.toMatchObject(violated("request_ids_request_id_length"));
  }
});
