import { readFileSync, statSync } from "node:fs";
import { homedir, platform } from "node:os";
import { dirname, isAbsolute, join, resolve } from "node:path";
import { CommandFailure } from "../call-failure.ts";
import { EXIT_WRONG_SETTING } from "../exit-codes.ts";
import { printable } from "../terminal/printable.ts";

/** The connection settings of one service. */
export interface Profile {
  readonly name: string;
  readonly address: string | undefined;
  readonly token: string | undefined;
  /** The path of a file with the token. */
  readonly tokenFile: string | undefined;
  /** The path of a file with the service's certificate authorities. */
  readonly ca: string | undefined;
  /** The paths of a client certificate and its private key. */
  readonly cert: string | undefined;
  readonly key: string | undefined;
}

const FIELDS = ["address", "token", "tokenFile", "ca", "cert", "key"] as const;
const DEFAULT_PROFILE = "default";

/** The path of `profiles.json` in the user's configuration folder, by the XDG convention. */
export function profileFile(env: Readonly<Record<string, string | undefined>>): string {
  const { XDG_CONFIG_HOME, HOME } = env;
  // The convention demands that relative paths are ignored.
  const base = XDG_CONFIG_HOME !== undefined && isAbsolute(XDG_CONFIG_HOME) ? XDG_CONFIG_HOME : undefined;
  return join(base ?? join(HOME || homedir(), ".config"), "harborforge-agents", "profiles.json");
}

/**
 * Reads the profile of this name, or the default of the file. Undefined: no name was given, and there is no file or no
 * default.
 *
 * @throws CommandFailure if the file is invalid, contains a token and is readable by others, or has no profile of this
 * name
 */
export function readProfile(path: string, requested: string | undefined): Profile | undefined {
  const text = readIfThere(path);
  if (text === undefined) {
    if (requested === undefined) return undefined;
    throw wrong(`The profile "${printable(requested)}" does not exist, because the file ${path} does not exist.`);
  }
  const file = objectOf(parsed(text, path), path, "the file");
  known(file, ["default", "profiles"], path, "the file");
  const profiles = objectOf(file.profiles ?? {}, path, "profiles");
  const name = requested ?? textOf(file.default, path, "default") ?? DEFAULT_PROFILE;
  const found = Object.hasOwn(profiles, name) ? profiles[name] : undefined;
  if (found === undefined) {
    if (requested === undefined && file.default === undefined) return undefined;
    const names = Object.keys(profiles).map(printable).join(", ");
    throw wrong(`The profile "${printable(name)}" does not exist in ${path}. Existing profiles: ${names || "none"}.`);
  }
  const where = `profile ${printable(name)}`;
  const fields = objectOf(found, path, where);
  known(fields, FIELDS, path, where);
  const [address, token, tokenFile, ca, cert, key] = FIELDS.map((field) =>
    textOf(fields[field], path, `${where}, ${field}`),
  );
  if (token !== undefined && tokenFile !== undefined) {
    throw wrong(`In ${path}, ${where} has both token and tokenFile: remove one of them.`);
  }
  if (anyToken(profiles)) assertSecret(path);
  const beside = (file: string | undefined) => (file === undefined ? undefined : resolve(dirname(path), file));
  return { name, address, token, tokenFile: beside(tokenFile), ca: beside(ca), cert: beside(cert), key: beside(key) };
}

/**
 * Reads a file that must not be readable by others.
 *
 * @param what the kind of secret, for messages
 * @throws CommandFailure
 */
export function readSecretFile(path: string, what: string): string {
  const text = readIfThere(path);
  if (text === undefined) throw wrong(`The ${what} file ${path} does not exist.`);
  assertSecret(path, what);
  return text.trim();
}

/**
 * Reads a file that the user named.
 *
 * @throws CommandFailure if it is not readable
 */
export function readNamedFile(path: string): string {
  const text = readIfThere(path);
  if (text === undefined) throw wrong(`The file ${path} does not exist.`);
  return text;
}

/** Rejects a secret file that others may read, as ssh does with keys. */
function assertSecret(path: string, what = "token"): void {
  if (platform() === "win32") return;
  const { mode } = statSync(path);
  if ((mode & 0o077) === 0) return;
  const shown = (mode & 0o777).toString(8).padStart(3, "0");
  throw wrong(`${path} contains a ${what} and is readable by others (mode ${shown}). Run "chmod 600 ${path}".`);
}

function anyToken(profiles: Readonly<Record<string, unknown>>): boolean {
  return Object.values(profiles).some((one) => typeof one === "object" && one !== null && "token" in one);
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if (error instanceof Error && "code" in error && (error.code === "ENOENT" || error.code === "ENOTDIR")) {
      return undefined;
    }
    throw wrong(`${path} is not readable: ${error instanceof Error ? error.message : String(error)}.`);
  }
}

function parsed(text: string, path: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // The parser's message quotes the text, which may contain a token.
    throw wrong(`${path} is not valid JSON. See "harborforge-agents --help" for an example.`);
  }
}

function objectOf(value: unknown, path: string, where: string): Readonly<Record<string, unknown>> {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return { ...value };
  throw wrong(`In ${path}, ${where} must be an object.`);
}

function textOf(value: unknown, path: string, where: string): string | undefined {
  if (value === undefined || (typeof value === "string" && value !== "")) return value;
  throw wrong(`In ${path}, ${where} must be a non-empty string.`);
}

function known(value: object, names: readonly string[], path: string, where: string): void {
  const unknown = Object.keys(value).find((name) => !names.includes(name));
  if (unknown === undefined) return;
  throw wrong(`In ${path}, ${where} has the unknown field "${printable(unknown)}". Use ${names.join(", ")}.`);
}

function wrong(sentence: string): CommandFailure {
  return new CommandFailure(sentence, EXIT_WRONG_SETTING);
}
