import { userInfo } from "node:os";
import { toRfc3339 } from "../../common/contract/time.ts";
import type { ProgramLog } from "../../common/logging/logger.ts";
import { mintToken } from "../access/token-text.ts";
import { parseDuration } from "../config/values.ts";
import type { ApiToken, TokenDirectory } from "../domain/api-token.ts";
import {
  DEFAULT_TOKEN_LIFETIME_MS,
  LONGEST_TOKEN_LIFETIME_MS,
  SHORTEST_TOKEN_LIFETIME_MS,
} from "../domain/api-token.ts";
import { type Reason, Refusal } from "../domain/errors.ts";
import { type Grant, ROLES } from "../domain/principal.ts";
import { readFields, readName, readOptionalName } from "../domain/validation.ts";
import { openDatabase } from "../storage/database.ts";
import { migrate } from "../storage/migrations.ts";
import { createTokenDirectory } from "../storage/token-directory.ts";
import { type Flags, runCommand } from "./command.ts";
import { EXIT_CONFLICT, EXIT_FAILED, EXIT_NOT_FOUND, EXIT_OK, EXIT_WRONG_SETTING } from "./exit-codes.ts";
import { unlessAborted } from "./stop-signals.ts";
import { printable } from "./terminal/printable.ts";

/** The flags of `tokens issue`. */
export interface IssueFlags {
  readonly role: string;
  readonly principal: string;
  readonly agentId?: readonly string[];
  readonly claw?: string;
  readonly lifetime?: string;
}

/** The exit codes of commands that call the service. */
const EXIT_BY_REASON: Readonly<Partial<Record<Reason, number>>> = {
  INVALID_FIELD: EXIT_WRONG_SETTING,
  TOKEN_NOT_FOUND: EXIT_NOT_FOUND,
  LIMIT_EXCEEDED: EXIT_CONFLICT,
};

/** The limit of TokenService. */
const MAX_AGENT_IDS = 1_000;

/** Parses a lifetime in milliseconds. Only lifetimes have the unit day: `90d`. */
function lifetimeOf(text: string | undefined): number | undefined {
  if (text === undefined) return DEFAULT_TOKEN_LIFETIME_MS;
  const [, days] = /^(\d{1,3})d$/.exec(text) ?? [];
  const ms = days === undefined ? parseDuration(text) : Number(days) * 24 * 3_600_000;
  return ms !== undefined && ms >= SHORTEST_TOKEN_LIFETIME_MS && ms <= LONGEST_TOKEN_LIFETIME_MS ? ms : undefined;
}

/**
 * `tokens issue`: makes a token directly in the database, so that there can be a first one. Standard output gets only
 * the token.
 *
 * @returns the exit code
 */
export function issueTokenCommand(process: NodeJS.Process, flags: Flags, given: IssueFlags): Promise<number> {
  return withTokens(process, flags, async (tokens, actor, log) => {
    const lifetimeMs = lifetimeOf(given.lifetime);
    if (lifetimeMs === undefined) {
      return wrong(process, "--lifetime must be a duration from 1s to 366d, such as 12h or 90d.");
    }
    const token = readFields((violations) => {
      const role = ROLES.find((one) => one === given.role);
      const claw = readOptionalName(violations, "--claw", given.claw);
      const agentIds = (given.agentId ?? []).map((agentId) => readName(violations, "--agent-id", agentId));
      if (agentIds.length > MAX_AGENT_IDS) violations.add("--agent-id", `must name at most ${MAX_AGENT_IDS} agents`);
      if (role === undefined) violations.add("--role", `must be one of ${ROLES.join(", ")}`);
      const named = Number(agentIds.length > 0) + Number(claw !== undefined);
      if (role === "agent" && named !== 1) violations.add("--role", "agent must come with either --agent-id or --claw");
      if (role !== "agent" && named !== 0) violations.add("--role", "must be agent for --agent-id or --claw");
      const grant: Grant =
        role !== "agent"
          ? { role: role ?? "viewer" }
          : claw === undefined
            ? { role, scope: { kind: "agents", agentIds: new Set(agentIds) } }
            : { role, scope: { kind: "claw", clawIdentifier: claw } };
      return { principal: readName(violations, "--principal", given.principal), grant, lifetimeMs };
    });
    const issued = await tokens.issue(token, { actor, request: undefined });
    const { keyId, expiresAt } = issued.token;
    audit(log, actor, { method: "tokens issue", keyId, principal: token.principal, role: token.grant.role });
    process.stderr.write(`Key ${keyId}, valid until ${toRfc3339(expiresAt)}. The token is shown only once:\n`);
    process.stdout.write(`${issued.secret ?? ""}\n`);
    return EXIT_OK;
  });
}

/** `tokens list`: lists all tokens without their secrets, one in a line. */
export function listTokensCommand(
  process: NodeJS.Process,
  flags: Flags,
  { principal }: { readonly principal?: string },
): Promise<number> {
  return withTokens(process, flags, async (tokens) => {
    process.stdout.write(`${["KEY", "ROLE", "PRINCIPAL", "EXPIRES", "STATE", "FOR"].join("\t")}\n`);
    for (let after: bigint | undefined, more = true; more; ) {
      const page = await tokens.list(principal, { after, limit: 1_000 });
      for (const token of page.rows) process.stdout.write(`${lineOf(token)}\n`);
      after = page.next;
      more = after !== undefined;
    }
    return EXIT_OK;
  });
}

/** `tokens revoke`: revokes a token, with effect within a second. */
export function revokeTokenCommand(process: NodeJS.Process, flags: Flags, keyId: string): Promise<number> {
  return withTokens(process, flags, async (tokens, actor, log) => {
    const { principal, grant, revoked } = await tokens.revoke(keyId, { actor, request: undefined });
    audit(log, actor, { method: "tokens revoke", keyId, principal, role: grant.role });
    const when = revoked === null ? "" : `, at ${toRfc3339(revoked.at)} by ${revoked.by}`;
    process.stdout.write(`${printable(`${keyId} of ${principal} is revoked${when}.`)}\n`);
    return EXIT_OK;
  });
}

function lineOf({ keyId, grant, principal, expiresAt, revoked }: ApiToken): string {
  const { scope } = grant;
  const state = revoked !== null ? "revoked" : expiresAt <= Date.now() * 1_000 ? "expired" : "valid";
  const whom =
    scope === undefined ? "" : scope.kind === "claw" ? `claw ${scope.clawIdentifier}` : [...scope.agentIds].join(",");
  return [keyId, grant.role, principal, toRfc3339(expiresAt), state, whom].map(printable).join("\t");
}

/** Also works while a service is running, which polls revocations from the database. */
function withTokens(
  process: NodeJS.Process,
  flags: Flags,
  work: (tokens: TokenDirectory, actor: string, log: ProgramLog) => Promise<number>,
): Promise<number> {
  return runCommand(
    process,
    flags,
    async ({ database, log, signals }) => {
      await unlessAborted(migrate(database.url), signals.stopping);
      const opened = openDatabase({ url: database.url, onIdleError: () => undefined });
      try {
        return await work(createTokenDirectory(opened, mintToken), actorOfShell(), log);
      } catch (error) {
        if (!(error instanceof Refusal)) throw error;
        process.stderr.write(`${printable(error.message)}\n`);
        return EXIT_BY_REASON[error.reason] ?? EXIT_FAILED;
      } finally {
        await opened.close();
      }
    },
    "share",
  );
}

/** Writes an audit line in the format of calls. */
function audit(log: ProgramLog, actor: string, facts: object): void {
  const lines = log.child({ audit: true }, log.level === "silent" ? {} : { level: "info" });
  lines.info({ event: "audit.command", actor, credential: "command line", ...facts }, "audit");
}

function wrong(process: NodeJS.Process, sentence: string): number {
  process.stderr.write(`${sentence}\n`);
  return EXIT_WRONG_SETTING;
}

/** Access to the database needs no token. The actor is the account on this machine. */
function actorOfShell(): string {
  try {
    return `user:${userInfo().username}`;
  } catch {
    return "user:unknown";
  }
}
