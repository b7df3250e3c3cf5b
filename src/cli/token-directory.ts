import { userInfo } from "node:os";
import type { ProgramLog } from "../../common/logging/logger.ts";
import { mintToken } from "../access/token-text.ts";
import type { AuditedCalls } from "../config/log.ts";
import type { TokenDirectory } from "../domain/api-token.ts";
import { type Reason, Refusal } from "../domain/errors.ts";
import { openDatabase } from "../storage/database.ts";
import { assertMigratedAt, migrate } from "../storage/migrations.ts";
import { createTokenDirectory } from "../storage/token-directory.ts";
import { openAuditLog } from "./audit-log.ts";
import { type Flags, runCommand } from "./command.ts";
import { EXIT_CONFLICT, EXIT_FAILED, EXIT_NOT_FOUND, EXIT_WRONG_SETTING } from "./exit-codes.ts";
import { unlessAborted } from "./stop-signals.ts";
import { printable } from "./terminal/printable.ts";

/** The exit codes of commands that call the service. */
const EXIT_BY_REASON: Readonly<Partial<Record<Reason, number>>> = {
  INVALID_FIELD: EXIT_WRONG_SETTING,
  TOKEN_NOT_FOUND: EXIT_NOT_FOUND,
  LIMIT_EXCEEDED: EXIT_CONFLICT,
};

/** Notes a change. */
export type Audit = (facts: object) => void;

/** Runs a command on the tokens of the database. Also works while a service is running, which polls revocations from the database. */
export function withTokens(
  process: NodeJS.Process,
  flags: Flags,
  work: (tokens: TokenDirectory, actor: string, audit: Audit) => Promise<number>,
): Promise<number> {
  return runCommand(
    process,
    flags,
    async ({ config, database, log, signals }) => {
      await using auditLog = openAuditLog(config.audit.file, log);
      const ready: Promise<unknown> = config.migrate === "on" ? migrate(database.url) : assertMigratedAt(database.url);
      await unlessAborted(ready, signals.stopping);
      const opened = openDatabase({ url: database.url, onIdleError: () => undefined });
      const actor = actorOfShell();
      try {
        return await work(
          createTokenDirectory(opened, mintToken),
          actor,
          auditTo(auditLog.log ?? log, actor, config.audit.calls),
        );
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

/** Writes an audit line in the format of calls. Each change of a token needs the role admin. */
function auditTo(log: ProgramLog, actor: string, calls: AuditedCalls): Audit {
  const lines = log.child({ audit: true }, log.level === "silent" ? {} : { level: "info" });
  return (facts) => {
    if (calls !== "none") lines.info({ event: "audit.command", actor, credential: "command line", ...facts }, "audit");
  };
}

/** Access to the database needs no token. The actor is the account on this machine. */
function actorOfShell(): string {
  try {
    return `user:${userInfo().username}`;
  } catch {
    return "user:unknown";
  }
}
