import { randomBytes } from "node:crypto";
import { administer, createEmptyDatabase } from "./cluster.ts";

/** Settings by their names, with values as SQL. */
export interface OwnedSettings {
  readonly role?: Readonly<Record<string, string>>;
  readonly database?: Readonly<Record<string, string>>;
}

export interface OwnedDatabase extends AsyncDisposable {
  /** Of the owner. */
  readonly url: string;
  /** Of a superuser. */
  readonly adminUrl: string;
  /** The name of the owner. */
  readonly role: string;
  /** Sets the settings on the role and on the database. */
  set(): Promise<void>;
}

/** A database whose owner is a role without privileges of its own. */
export async function openOwnedDatabase(settings: OwnedSettings = {}): Promise<OwnedDatabase> {
  await using undo = new AsyncDisposableStack();
  const { url, drop } = undo.use(await createEmptyDatabase());
  const name = new URL(url).pathname.slice(1);
  const role = `${name}_owner`;
  const password = randomBytes(9).toString("hex");
  await administer(url, `CREATE ROLE ${role} LOGIN PASSWORD '${password}'`, `ALTER DATABASE ${name} OWNER TO ${role}`);
  undo.defer(async () => {
    const admin = new URL(url);
    admin.pathname = "/postgres";
    await drop();
    await administer(admin.href, `DROP ROLE ${role}`);
  });
  const set = async (of: "role" | "database"): Promise<void> => {
    const target = of === "role" ? `ROLE ${role}` : `DATABASE ${name}`;
    for (const [setting, value] of Object.entries(settings[of] ?? {})) {
      await administer(url, `ALTER ${target} SET ${setting} = ${value}`);
    }
  };
  const owner = new URL(url);
  owner.username = role;
  owner.password = password;
  const everything = undo.move();
  return {
    url: owner.href,
    adminUrl: url,
    role,
    async set() {
      await set("role");
      await set("database");
    },
    [Symbol.asyncDispose]: () => everything.disposeAsync(),
  };
}
