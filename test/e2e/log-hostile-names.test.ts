import { create } from "@bufbuild/protobuf";
import { createServiceClients } from "harborforge-agents-client";
import { describe, expect, test } from "vitest";
import { AgentStatus } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import { UpdateAgentStatusRequestSchema } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { openMint } from "../support/access.ts";
import { createTestDatabase } from "../support/cluster.ts";
import { HOSTILE_CHARACTERS, RAW } from "../support/hostile-text.ts";
import { openStage, says } from "../support/program.ts";

/** Characters that a name may contain: no control characters, no lone surrogate. */
const ALLOWED = HOSTILE_CHARACTERS.filter(([, character]) => !/[\p{Cc}\p{Cs}]/u.test(character));

describe.each(["json", "pretty"])("the log of a service in the format %s", (format) => {
  test("shows hostile names of agents, users, claws and principals escaped", async () => {
    await using database = await createTestDatabase();
    await using mint = openMint(database.url);
    const name = `ada${ALLOWED.map(([, character]) => character).join("x")}bob`;
    const issued = await mint.tokens.issue(
      { principal: name, grant: { role: "admin" }, lifetimeMs: 3_600_000 },
      { actor: "user:test", request: undefined },
    );
    await using stage = await openStage();
    const serving = await stage.serve({
      env: {
        DATABASE_URL: database.url,
        HARBORFORGE_AUTH: "required",
        HARBORFORGE_LOG_FORMAT: format,
        HARBORFORGE_LOG_LEVEL: "trace",
      },
    });
    const token = issued.secret ?? "";
    using clients = createServiceClients({ address: serving.grpc.replace("http://", ""), token });
    await clients.users.createUser({ username: name, agentId: name, clawIdentifier: name, requestId: name });
    await clients.agents.updateAgentStatus(
      create(UpdateAgentStatusRequestSchema, { agentId: name, status: AgentStatus.BUSY }),
    );
    await expect(clients.agents.deleteAgent({ agentId: `${name}!` })).rejects.toThrow();
    await clients.tokens.issueToken({ principal: `${name}2`, role: 4 });
    await says(serving, /IssueToken/);
    serving.kill("SIGTERM");
    const { stderr } = await serving.ended;
    expect(stderr).not.toMatch(RAW);
    // The actor, and the targets of three changes.
    expect(stderr.match(/ada/g)?.length).toBeGreaterThanOrEqual(7);
    expect(stderr).toContain(format === "json" ? "\\u202e" : "\\u{202e}");
  });
});
