import { type Definition, path, type ValuesOf } from "./setting.ts";
import { isDatabaseUrl } from "./values.ts";

/** The PostgreSQL to use: an external one, or the embedded one with its data in a folder. */
export type DatabaseChoice =
  | { readonly kind: "external"; readonly url: string }
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

export function databaseOf({ databaseUrl: url, dataDir }: ValuesOf<typeof DATABASE_SETTINGS>): DatabaseChoice {
  return Object.freeze(url === undefined ? { kind: "embedded", dataDir } : { kind: "external", url });
}
