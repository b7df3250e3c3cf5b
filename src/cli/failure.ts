import { ConfigError } from "../config.ts";
import { AddressError } from "../server.ts";
import { EmbeddedPostgresError } from "../storage/embedded/embedded-postgres-error.ts";
import { failureKind } from "../storage/failures.ts";
import { MigrationError } from "../storage/migrate.ts";

export const EXIT_OK = 0;
export const EXIT_FAILED = 1;
export const EXIT_WRONG_SETTING = 2;

/** What a person is told of a start that failed, and the exit code. */
export function explain(error: unknown, database: string): { readonly sentence: string; readonly exitCode: number } {
  if (error instanceof ConfigError) return { sentence: error.message, exitCode: EXIT_WRONG_SETTING };
  if (error instanceof EmbeddedPostgresError || error instanceof MigrationError || error instanceof AddressError) {
    return { sentence: error.message, exitCode: EXIT_FAILED };
  }
  const message = error instanceof Error ? error.message || error.name : String(error);
  if (error instanceof Error && "code" in error) {
    switch (error.code) {
      case "28P01":
      case "28000":
        return { sentence: `${database} refuses the login: ${message}. Check DATABASE_URL.`, exitCode: EXIT_FAILED };
      case "3D000":
        return {
          sentence: `${database} does not exist: ${message}. Create it, or check DATABASE_URL.`,
          exitCode: EXIT_FAILED,
        };
      case "42501":
        return {
          sentence: `${database} does not let this user work: ${message}. Grant it, or use another user.`,
          exitCode: EXIT_FAILED,
        };
    }
  }
  if (failureKind(error) === "lost") {
    return {
      sentence: `${database} cannot be reached${message === "" ? "" : ` (${message})`}. Check DATABASE_URL.`,
      exitCode: EXIT_FAILED,
    };
  }
  return { sentence: `It failed: ${message}`, exitCode: EXIT_FAILED };
}
