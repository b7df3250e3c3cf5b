/**
 * Why an embedded PostgreSQL could not be started or stopped.
 *
 * - `IN_USE`: another process serves the data folder.
 * - `FOREIGN_FOLDER`: the folder has data of other programs; nothing was changed.
 * - `INCOMPLETE_CLUSTER`: the cluster in it lacks necessary files; nothing was changed.
 * - `WRONG_VERSION`: the cluster belongs to another major version of PostgreSQL; nothing was changed.
 * - `NO_PERMISSION`: the folder cannot be read, written or owned as needed.
 * - `UNREACHABLE`: root runs the service, and the server account cannot enter the folder.
 * - `NO_ACCOUNT`: root runs the service, and there is no account to run PostgreSQL as.
 * - `NO_BINARIES`: no PostgreSQL for this platform is installed, or it does not run here.
 * - `PASSWORD_LOST`: the password in the data folder is missing or wrong.
 * - `INIT_FAILED`, `START_FAILED`, `STOP_FAILED`: PostgreSQL itself failed; the message has its error.
 */
export type EmbeddedPostgresErrorReason =
  | "IN_USE"
  | "FOREIGN_FOLDER"
  | "INCOMPLETE_CLUSTER"
  | "WRONG_VERSION"
  | "NO_PERMISSION"
  | "UNREACHABLE"
  | "NO_ACCOUNT"
  | "NO_BINARIES"
  | "PASSWORD_LOST"
  | "INIT_FAILED"
  | "START_FAILED"
  | "STOP_FAILED";

/** The message is for the person who starts the service: what is wrong, and what to do. */
export class EmbeddedPostgresError extends Error {
  readonly reason: EmbeddedPostgresErrorReason;

  constructor(reason: EmbeddedPostgresErrorReason, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "EmbeddedPostgresError";
    this.reason = reason;
  }
}

/** The `code` of an error of the operating system (`ENOENT`, `EACCES`, …) or of PostgreSQL (an SQLSTATE). */
export function errorCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || !("code" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}

const permissionCodes = new Set(["EACCES", "EPERM", "EROFS"]);

/**
 * Runs `step` on `path`, and explains errors of the operating system. Other errors pass through: ours have their message, the rest
 * are faults of the program.
 */
export async function explained<T>(path: string, step: () => Promise<T>): Promise<T> {
  try {
    return await step();
  } catch (error) {
    if (!(error instanceof Error && "syscall" in error)) throw error;
    const code = errorCode(error);
    if (code !== undefined && permissionCodes.has(code)) {
      throw new EmbeddedPostgresError(
        "NO_PERMISSION",
        `The data folder ${path} cannot be used for lack of permission (${messageOf(error)}). ` +
          "Make it readable and writable for the user who starts the service, or choose another one with HARBORFORGE_DATA_DIR.",
        { cause: error },
      );
    }
    throw new EmbeddedPostgresError(
      "START_FAILED",
      `The data folder ${path} cannot be used (${messageOf(error)}). Fix that, or choose another one with HARBORFORGE_DATA_DIR.`,
      { cause: error },
    );
  }
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
