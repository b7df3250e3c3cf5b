import { fileURLToPath } from "node:url";

/** The fields of an error in the log. */
export interface LoggedError {
  /** The class of the error, such as `TypeError`. */
  readonly type: string;
  /** Its code: an SQLSTATE, one of Node's, such as `ECONNREFUSED`, or the reason of a refusal. `none`: it has no code. */
  readonly code: string;
  readonly message?: string;
  /** The table and constraint of a database error. */
  readonly table?: string;
  readonly constraint?: string;
  /** The frames in this program's code, innermost first: file and line, without the rest of the stack. */
  readonly at?: readonly string[];
  readonly cause?: LoggedError;
}

const NO_CODE = "none";
const MAX_MESSAGE_LENGTH = 500;
const MAX_PLACES = 6;
const MAX_CAUSES = 3;

/**
 * The loggable part of an error. Messages of drivers and libraries quote their input: statements with values, existing
 * keys, addresses with passwords. So the log has only their code, which names the fault as well, and only the stack
 * frames of this program.
 */
export function loggedError(error: unknown, causes = MAX_CAUSES): LoggedError {
  if (!(error instanceof Error)) return { type: typeof error, code: NO_CODE };
  const code = textOf(error, "code") ?? textOf(error, "reason") ?? NO_CODE;
  const table = textOf(error, "table");
  const constraint = textOf(error, "constraint");
  const at = placesIn(error);
  return {
    type: error.constructor.name || error.name,
    code,
    ...(isForeign(error) ? {} : { message: scrubbed(error.message) }),
    ...(table === undefined ? {} : { table }),
    ...(constraint === undefined ? {} : { constraint }),
    ...(at.length === 0 ? {} : { at }),
    ...(error.cause === undefined || causes === 0 ? {} : { cause: loggedError(error.cause, causes - 1) }),
  };
}

/** Classes of errors of the language, and of this program. */
const OWN_TYPES = new Set([
  "TypeError",
  "RangeError",
  "ReferenceError",
  "AssertionError",
  "Refusal",
  "TlsError",
  "AddressError",
  "ConfigError",
  "MigrationError",
  "UnusableDatabase",
  "EmbeddedPostgresError",
  "ConnectionTimeout",
]);

/** Whether a library wrote the message. A plain `Error` counts as foreign if a package created it. */
function isForeign(error: Error): boolean {
  if (textOf(error, "code") !== undefined || textOf(error, "severity") !== undefined) return true;
  const type = error.constructor.name;
  if (OWN_TYPES.has(type)) return false;
  return type !== "Error" || /[\\/]node_modules[\\/]/.test(firstFrame(error));
}

function firstFrame({ stack = "" }: Error): string {
  return stack.split("\n").find((line) => /^\s+at /.test(line)) ?? "";
}

/**
 * Patterns of statements, addresses with passwords, and credentials. They are removed from this program's messages as
 * well.
 */
const SECRETS: readonly [RegExp, string][] = [
  [/\b([a-z][a-z0-9+.-]*:\/\/)\S*@/gi, "$1"],
  [/\b(bearer|basic)\s+\S+/gi, "$1 …"],
  [/\beyJ[\w-]+\.[\w-]+\.[\w-]*/g, "…"],
  [/\b(select|insert\s+into|update|delete\s+from|with)\b.*\b(from|into|values|set|where|as)\b[\s\S]*/gi, "…"],
];

function scrubbed(message: string): string {
  const clean = SECRETS.reduce((text, [pattern, instead]) => text.replace(pattern, instead), message);
  return clean.length > MAX_MESSAGE_LENGTH ? `${clean.slice(0, MAX_MESSAGE_LENGTH)}…` : clean;
}

function textOf(error: Error, property: string): string | undefined {
  const value: unknown = Reflect.get(error, property);
  if (typeof value !== "string" && typeof value !== "number") return undefined;
  const text = String(value);
  // Codes and names are single words. Other text may be a message.
  return /^[\w.-]{1,63}$/.test(text) ? text : undefined;
}

const TOP = fileURLToPath(new URL("../../", import.meta.url));
const OUR_FILE = new RegExp(
  `${TOP.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&")}((?:src|gen|migrations|test|scripts)/[^:)]+:\\d+)`,
);

function placesIn({ stack = "" }: Error): string[] {
  return stack
    .split("\n")
    .flatMap((line) => (/^\s+at /.test(line) ? (OUR_FILE.exec(line)?.[1] ?? []) : []))
    .slice(0, MAX_PLACES);
}
