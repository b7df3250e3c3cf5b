import { once } from "node:events";
import { existsSync } from "node:fs";
import { chmod, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { delimiter, join } from "node:path";
import { portOf } from "./fault-proxy.ts";
import { spawn, temporaryFolder } from "./owned-process.ts";
import { until } from "./until.ts";

/** Debian's folder for it is not on every user's path. */
const FOLDERS = [...(process.env.PATH ?? "").split(delimiter), "/usr/sbin", "/usr/local/sbin"];

function programPath(): string | undefined {
  return FOLDERS.map((folder) => join(folder, "pgbouncer")).find((path) => existsSync(path));
}

/** The reason why no PgBouncer can run here; undefined if it can. */
export function whyNoPgbouncer(): string | undefined {
  return programPath() === undefined ? "PgBouncer is not installed (apt-get install pgbouncer)" : undefined;
}

export interface Pgbouncer extends AsyncDisposable {
  /** The URL of the database through the pooler. */
  readonly url: string;
}

/** Settings of its file by their names, such as `pool_mode`. */
export type PgbouncerSettings = Readonly<Record<string, string | number>>;

/** PgBouncer does not run as root. */
const NOBODY = 65_534;

/** PgBouncer in front of the database of `databaseUrl`. It accepts every login, and logs in as the URL's user. */
export async function startPgbouncer(databaseUrl: string, settings: PgbouncerSettings): Promise<Pgbouncer> {
  await using undo = new AsyncDisposableStack();
  const folder = await temporaryFolder("pgbouncer");
  undo.defer(() => rm(folder, { recursive: true, force: true }));
  await chmod(folder, 0o755);
  const target = new URL(databaseUrl);
  const port = await freePort();
  const file = join(folder, "pgbouncer.ini");
  const login = `user=${target.username} password='${decodeURIComponent(target.password)}'`;
  const all = { listen_addr: "127.0.0.1", listen_port: port, unix_socket_dir: "", auth_type: "any", ...settings };
  const lines = Object.entries(all).map(([name, value]) => `${name} = ${value}`);
  const databases = `[databases]\n* = host=${target.hostname} port=${target.port} ${login}`;
  await writeFile(file, `${databases}\n[pgbouncer]\n${lines.join("\n")}\n`, { mode: 0o644 });
  const identity = process.getuid?.() === 0 ? { uid: NOBODY, gid: NOBODY } : {};
  const child = spawn(programPath() ?? "pgbouncer", [file], {
    ...identity,
    cwd: "/",
    stdio: ["ignore", "pipe", "pipe"],
  });
  let said = "";
  for (const output of [child.stdout, child.stderr]) {
    output?.setEncoding("utf8").on("data", (text: string) => {
      said += text;
    });
  }
  undo.defer(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGKILL");
    await once(child, "close");
  });
  await until("PgBouncer listens", () => {
    if (child.exitCode !== null) throw new Error(`PgBouncer ended: ${said}`);
    return said.includes("process up");
  });
  const url = new URL(databaseUrl);
  url.host = `127.0.0.1:${port}`;
  const everything = undo.move();
  return {
    url: url.href,
    [Symbol.asyncDispose]: () => everything.disposeAsync(),
  };
}

/** PgBouncer cannot take a free port by itself. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const port = portOf(server);
  server.close();
  await once(server, "close");
  return port;
}
