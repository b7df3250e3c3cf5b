import { readFileSync, statSync } from "node:fs";
import { homedir, platform } from "node:os";
import { dirname, isAbsolute, join, resolve } from "node:path";
import { CommandFailure } from "../call-failure.ts";
import { EXIT_WRONG_SETTING } from "../exit-codes.ts";
import { printable } from "../terminal/printable.ts";

/** How one service is reached. */
export interface Profile {
  readonly name: string;
  readonly address: string | undefined;
  readonly token: string | undefined;
  /** The path of a file that holds the token. */
  readonly tokenFile: string | undefined;
  /** The path of a file with the certificates that vouch for the service. */
  readonly ca: string | undefined;
  /** The paths of a certificate that says who calls, and of its private key. */
  readonly cert: string | undefined;
  readonly key: string | undefined;
}

const FIELDS = ["address", "token", "tokenFile", "ca", "cert", "key"] as const;
const DEFAULT_PROFILE = "default";

/** `profiles.json` in the user's folder for settings, by the XDG convention. */
export function profileFile(env: Readonly<Record<string, string | undefined>>): string {
  const { XDG_CONFIG_HOME, HOME } = env;
  // A relative path is to be ignored, as the convention says.
  const base = XDG_CONFIG_HOME !== undefined && isAbsolute(XDG_CONFIG_HOME) ? XDG_CONFIG_HOME : undefined;
  return join(base ?? join(HOME || homedir(), ".config"), "harborforge-agents", "profiles.json");
}

/**
 * The profile of this name; without one, the file's default. Undefined where no file or no default is there and none was
 * asked for.
 *
 * @throws CommandFailure for a file that is wrong, that others may read although it holds a token, and for a name that it
 *   does not know
 */
export function readProfile(path: string, asked: string | undefined): Profile | undefined {
  const text = readIfThere(path);
  if (text === undefined) {
    if (asked === undefined) return undefined;
    throw wrong(`There is no profile "${printable(asked)}", since there is no ${path}.`);
  }
  const file = objectOf(parsed(text, path), path, "the file");
  known(file, ["default", "profiles"], path, "the file");
  const profiles = objectOf(file.profiles ?? {}, path, "profiles");
  const name = asked ?? textOf(file.default, path, "default") ?? DEFAULT_PROFILE;
  const found = Object.hasOwn(profiles, name) ? profiles[name] : undefined;
  if (found === undefined) {
    if (asked === undefined && file.default === undefined) return undefined;
    const names = Object.keys(profiles).map(printable).join(", ");
    throw wrong(`There is no profile "${printable(name)}" in ${path}; there are: ${names || "none"}.`);
  }
  const where = `profile ${printable(name)}`;
  const fields = objectOf(found, path, where);
  known(fields, FIELDS, path, where);
  const [address, token, tokenFile, ca, cert, key] = FIELDS.map((field) =>
    textOf(fields[field], path, `${where}, ${field}`),
  );
  if (token !== undefined && tokenFile !== undefined) {
    throw wrong(`In ${path}, ${where} has a token and a tokenFile: leave one of them out.`);
  }
  if (anyToken(profiles)) keptSecret(path);
  const beside = (file: string | undefined) => (file === undefined ? undefined : resolve(dirname(path), file));
  return { name, address, token, tokenFile: beside(tokenFile), ca: beside(ca), cert: beside(cert), key: beside(key) };
}

/** What a file holds that others may not read. @param what for people @throws CommandFailure */
export function readSecretFile(path: string, what: string): string {
  const text = readIfThere(path);
  if (text === undefined) throw wrong(`There is no ${what} file ${path}.`);
  keptSecret(path, what);
  return text.trim();
}

/** A file that somebody named. @throws CommandFailure when it cannot be read */
export function readNamedFile(path: string): string {
  const text = readIfThere(path);
  if (text === undefined) throw wrong(`There is no file ${path}.`);
  return text;
}

/** As ssh does with keys: who leaves a secret open is told at once, not after it was taken. */
function keptSecret(path: string, what = "token"): void {
  if (platform() === "win32") return;
  const { mode } = statSync(path);
  if ((mode & 0o077) === 0) return;
  const shown = (mode & 0o777).toString(8).padStart(3, "0");
  throw wrong(`${path} holds a ${what} and may be read by others (mode ${shown}): run "chmod 600 ${path}" first.`);
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
    throw wrong(`${path} cannot be read: ${error instanceof Error ? error.message : String(error)}.`);
  }
}

function parsed(text: string, path: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // What the parser says quotes the text, which may hold a token.
    throw wrong(`${path} is no JSON: see "harborforge-agents --help" for how it looks.`);
  }
}

function objectOf(value: unknown, path: string, where: string): Readonly<Record<string, unknown>> {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return { ...value };
  throw wrong(`In ${path}, ${where} must be an object.`);
}

function textOf(value: unknown, path: string, where: string): string | undefined {
  if (value === undefined || (typeof value === "string" && value !== "")) return value;
  throw wrong(`In ${path}, ${where} must be a text that is not empty.`);
}

function known(value: object, names: readonly string[], path: string, where: string): void {
  const unknown = Object.keys(value).find((name) => !names.includes(name));
  if (unknown === undefined) return;
  throw wrong(`In ${path}, ${where} has "${printable(unknown)}", which is none of ${names.join(", ")}.`);
}

function wrong(sentence: string): CommandFailure {
  return new CommandFailure(sentence, EXIT_WRONG_SETTING);
}
