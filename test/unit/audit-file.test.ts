import { readFile, rm, stat, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pino } from "pino";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { ProgramLog } from "../../common/logging/logger.ts";
import { AgentService } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { UserService } from "../../gen/harborforge/agents/v1/user_service_pb.ts";
import { openAuditLog } from "../../src/cli/audit-log.ts";
import { ConfigError } from "../../src/config/problems.ts";
import type { Principal } from "../../src/domain/principal.ts";
import { accessRule } from "../../src/rpc/pipeline/access-rules.ts";
import { type AuditOptions, createAudit } from "../../src/rpc/pipeline/audit.ts";
import { temporaryFolder } from "../support/owned-process.ts";

let folder = "";
let file = "";
beforeEach(async () => {
  folder = await temporaryFolder("audit");
  file = join(folder, "audit.log");
});
afterEach(() => rm(folder, { recursive: true, force: true }));

/** A log whose events a test can read. */
function collected(): { readonly log: ProgramLog; readonly events: () => unknown[] } {
  const lines: string[] = [];
  return {
    log: pino({ level: "info" }, { write: (line: string) => void lines.push(line) }),
    events: () => lines.map((line): unknown => JSON.parse(line).event),
  };
}

const event = { event: "audit.call" } as const;
const linesOf = async (): Promise<unknown[]> =>
  (await readFile(file, "utf8"))
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line));

describe("the file for audit lines", () => {
  test("gets each line as JSON, escaped as in the log, and only this user can read it", async () => {
    const { log } = collected();
    {
      await using audit = openAuditLog(file, log);
      audit.log?.child({ audit: true }).info({ ...event, username: "a\u202eb" }, "audit");
    }
    expect((await stat(file)).mode & 0o777).toBe(0o600);
    expect(await readFile(file, "utf8")).toContain('"username":"a\\u202eb"');
    expect(await linesOf()).toMatchObject([{ level: "info", audit: true, event: "audit.call", msg: "audit" }]);
  });

  test("is appended to, also after a rotation that copies and truncates it", async () => {
    await writeFile(file, '{"earlier":true}\n');
    await using audit = openAuditLog(file, collected().log);
    audit.log?.info({ ...event, id: 1 }, "audit");
    await vi.waitFor(async () => expect(await linesOf()).toMatchObject([{ earlier: true }, { id: 1 }]));
    await truncate(file);
    audit.log?.info({ ...event, id: 2 }, "audit");
    // Without a hole at its beginning.
    await vi.waitFor(async () => expect(await linesOf()).toMatchObject([{ id: 2 }]));
  });

  test("that cannot be written stops the start, and names the setting", () => {
    expect(() => openAuditLog(join(folder, "gone/audit.log"), collected().log)).toThrow(ConfigError);
    expect(() => openAuditLog(folder, collected().log)).toThrow(
      /^HARBORFORGE_AUDIT_FILE: the file cannot be written \(EISDIR.+\)\.$/,
    );
  });

  test.skipIf(process.platform !== "linux")(
    "on a full disk logs an error, once for the failures in a row",
    async () => {
      const { log, events } = collected();
      await using audit = openAuditLog("/dev/full", log);
      audit.log?.info(event, "audit");
      await vi.waitFor(() => expect(events()).toEqual(["audit.write_failed"]));
      audit.log?.info(event, "audit");
      audit.log?.info(event, "audit");
      expect(events()).toEqual(["audit.write_failed"]);
    },
  );
});

describe("the changes that are audited", () => {
  const principal: Principal = { role: "admin", name: "ada", credential: "token:1", expiresAt: undefined };
  const status = AgentService.method.updateAgentStatus;
  const user = UserService.method.createUser;

  function audited(options: AuditOptions): number {
    const { log, events } = collected();
    const audit = createAudit(log, accessRule, options);
    for (const method of [status, user]) audit(method, principal, {}, {});
    return events().length;
  }

  test("are all, or those that need the role admin, or none", () => {
    expect(audited({})).toBe(2);
    expect(audited({ calls: "all" })).toBe(2);
    expect(audited({ calls: "admin" })).toBe(1);
    expect(audited({ calls: "none" })).toBe(0);
  });

  test("go to a log of their own, if there is one", () => {
    const [program, own] = [collected(), collected()];
    createAudit(program.log, accessRule, { log: own.log })(user, principal, {}, {});
    expect(program.events()).toEqual([]);
    expect(own.events()).toEqual(["audit.call"]);
  });
});
