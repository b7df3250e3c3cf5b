import type { Reporter } from "./problems.ts";
import { readSecret } from "./secret-file.ts";
import { type Definition, oneOf, path, type ValuesOf } from "./setting.ts";
import { isDatabaseUrl } from "./values.ts";

/** The PostgreSQL to use: an external one, or the embedded one with its data in a folder. */
export type DatabaseChoice =
  | {
      readonly kind: "external";
      readonly url: string;
      /** The file of the URL: its user and password may change while the service runs. */
      readonly urlFile?: string;
    }
  /** `dataDir` undefined: the default folder of the embedded PostgreSQL. */
  | { readonly kind: "embedded"; readonly dataDir: string | undefined };

const databaseUrl: Definition<string | undefined> = {
  // The name that hosting providers set.
  env: "DATABASE_URL",
  placeholder: "<url>",
  description: "the PostgreSQL database (15 to 18) to use",
  defaultText: "an embedded PostgreSQL",
  fallback: undefined,
  allowed: "a URL such as postgres://user:password@host:5432/database; several hosts are separated by commas",
  secret: true,
  parse: (text) => (isDatabaseUrl(text) ? text : undefined),
};

export const DATABASE_SETTINGS = {
  databaseUrl,
  databaseUrlFile: {
    ...path(
      {
        placeholder: "<file>",
        description:
          "a file with the value of DATABASE_URL; new connections use the user and password that it then has",
      },
      "a file",
    ),
    env: "DATABASE_URL_FILE",
  },
  dataDir: path(
    {
      placeholder: "<folder>",
      description: "the data folder of the embedded PostgreSQL",
      defaultText:
        "$XDG_DATA_HOME/harborforge-agents, else ~/.local/share/harborforge-agents; for root /var/lib/harborforge-agents if another user cannot enter that",
    },
    "a folder",
  ),
};

/** When the start migrates the database. */
export const MIGRATION_SETTINGS = {
  migrate: oneOf(
    {
      placeholder: "<on|off|check>",
      description:
        "on: the start migrates the database; off: it waits until another process has migrated it; check: it only checks, and ends with 0 if the database is migrated, else with 1",
    },
    "on",
    ["on", "off", "check"],
  ),
};

type DatabaseValues = ValuesOf<typeof DATABASE_SETTINGS>;

export function databaseOf(
  { databaseUrl: url, databaseUrlFile: urlFile, dataDir }: DatabaseValues,
  { nameOf, report }: Reporter<keyof typeof DATABASE_SETTINGS>,
): DatabaseChoice {
  if (urlFile === undefined) {
    return Object.freeze(url === undefined ? { kind: "embedded", dataDir } : { kind: "external", url });
  }
  const name = nameOf("databaseUrlFile");
  if (url !== undefined)
    report("databaseUrlFile", `${name} is set, but ${nameOf("databaseUrl")} is set, too: unset one of them.`);
  try {
    return Object.freeze({ kind: "external", url: readDatabaseUrl(urlFile), urlFile });
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    report("databaseUrlFile", `${name} is ${JSON.stringify(urlFile)}: the file ${why}.`);
    return Object.freeze({ kind: "embedded", dataDir });
  }
}

/**
 * The URL of a file.
 *
 * @throws Error whose message completes «the file …», without the content
 */
export function readDatabaseUrl(file: string): string {
  const url = readSecret(file);
  if (!isDatabaseUrl(url)) throw new Error(`must contain ${databaseUrl.allowed}`);
  return url;
}
