import { existsSync } from "node:fs";
import { chmod, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { delimiter, join } from "node:path";
import { createAuthority } from "./certificates.ts";
import { section } from "./fenced-blocks.ts";
import { spawn, temporaryFolder } from "./owned-process.ts";
import { checkout } from "./program.ts";
import { tcp } from "./rpc-raw.ts";

export type ProxyName = "nginx" | "haproxy" | "caddy";

/** Why a proxy is not tested here; undefined if it is installed. */
export function notInstalled(name: ProxyName): string | undefined {
  const found = searchPath.split(delimiter).some((folder) => folder !== "" && existsSync(join(folder, name)));
  return found ? undefined : `${name} is not installed (Debian: apt-get install ${name})`;
}

const searchPath = `${process.env.PATH ?? ""}:/usr/sbin:/usr/bin`;

/** The replicas of the page, `10.0.0.1` and `10.0.0.2`: the hosts here, and the ports, which both share. */
export interface Replicas {
  readonly hosts: readonly [string, string];
  readonly grpcPort: number;
  readonly httpPort: number;
}

export interface RunningProxy extends AsyncDisposable {
  /** `https://localhost:port` */
  readonly url: string;
  /** The authority of its certificate, PEM. */
  readonly ca: string;
  /** What it said. */
  readonly output: () => string;
}

/**
 * Runs a proxy with the configuration of `docs/proxies.md`. Only addresses, ports and paths are replaced.
 *
 * @param change changes the configuration, to see what a directive is for
 */
export async function startProxy(
  name: ProxyName,
  replicas: Replicas,
  change: (configuration: string) => string = (same) => same,
): Promise<RunningProxy> {
  const page = await readFile(join(checkout, "docs/proxies.md"), "utf8");
  const block = section(page, name).replace(/^```\w*\n|```\n$/g, "");
  const folder = await temporaryFolder(name);
  // nginx's workers run as another user if this one is root.
  await chmod(folder, 0o755);
  const port = await freePort();
  const authority = createAuthority();
  const { cert, key } = authority.issue({ names: { dnsNames: ["localhost"], addresses: ["127.0.0.1"] } });
  const files = { cert: join(folder, "agents.pem"), key: join(folder, "agents.key") };
  // HAProxy reads both from one file.
  await writeFile(files.cert, name === "haproxy" ? `${cert}\n${key}` : cert);
  await writeFile(files.key, key);
  const configuration = change(block)
    .replaceAll("10.0.0.1:", `${replicas.hosts[0]}:`)
    .replaceAll("10.0.0.2:", `${replicas.hosts[1]}:`)
    .replace(/:50051\b/g, `:${replicas.grpcPort}`)
    .replace(/(?<=[: ])8080\b/g, `${replicas.httpPort}`)
    .replace(/(?<=listen |bind :)443/g, `${port}`)
    .replace(/\/etc\/\w+\/agents\.pem/g, files.cert)
    .replace(/\/etc\/\w+\/agents\.key/g, files.key)
    .replace(/^agents\.example\.org \{/m, `localhost:${port} {`);
  const [command, ...args] = await COMMANDS[name](folder, configuration);
  const child = spawn(command, args, {
    env: { PATH: searchPath, HOME: folder, XDG_DATA_HOME: folder, XDG_CONFIG_HOME: folder },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let said = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (text: Buffer) => (said += text.toString()));
  const ended = new Promise<void>((resolve) => child.once("close", () => resolve()));
  const stop = async (): Promise<void> => {
    child.kill("SIGKILL");
    await ended;
    await rm(folder, { recursive: true, force: true });
  };
  try {
    await untilListening(port, () => (child.exitCode === null ? undefined : `${name} ended: ${said}`));
  } catch (error) {
    await stop();
    throw error;
  }
  return { url: `https://localhost:${port}`, ca: authority.cert, output: () => said, [Symbol.asyncDispose]: stop };
}

type Command = readonly [command: string, ...args: string[]];

/** What stands around the configuration, and the command that runs it in the foreground. */
const COMMANDS: Readonly<Record<ProxyName, (folder: string, configuration: string) => Promise<Command>>> = {
  async nginx(folder, configuration) {
    await mkdir(join(folder, "temporary"), { mode: 0o777 });
    await chmod(join(folder, "temporary"), 0o777);
    const paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(
      (what) => `${what}_temp_path ${join(folder, "temporary", what)};`,
    );
    const file = join(folder, "nginx.conf");
    const around = `daemon off; master_process off; pid ${join(folder, "nginx.pid")}; error_log stderr;
      events { worker_connections 512; }
      http { access_log off; ${paths.join(" ")}\n${configuration}\n}`;
    await writeFile(file, around);
    return ["nginx", "-p", folder, "-e", "stderr", "-c", file];
  },
  async haproxy(folder, configuration) {
    const file = join(folder, "haproxy.cfg");
    await writeFile(file, configuration);
    return ["haproxy", "-db", "-f", file];
  },
  async caddy(folder, configuration) {
    const file = join(folder, "Caddyfile");
    // Without it, Caddy would listen on port 80, too, and on the port of its own interface.
    await writeFile(file, `{\n\tadmin off\n\tauto_https disable_redirects\n}\n${configuration}`);
    return ["caddy", "run", "--config", file, "--adapter", "caddyfile"];
  },
};

/** A port that was free a moment ago: a proxy cannot say which port it took. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") throw new Error("there is no free port");
  return address.port;
}

async function untilListening(port: number, failure: () => string | undefined): Promise<void> {
  const deadline = performance.now() + 40_000;
  for (;;) {
    const why = failure();
    if (why !== undefined) throw new Error(why);
    const socket = await tcp(`127.0.0.1:${port}`).catch(() => undefined);
    socket?.destroy();
    if (socket !== undefined) return;
    if (performance.now() > deadline) throw new Error("the proxy does not listen");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
