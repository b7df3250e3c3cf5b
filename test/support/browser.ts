import { existsSync } from "node:fs";
import { rm } from "node:fs/promises";
import { createServer } from "node:http";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { build } from "esbuild";
import { chromium, type Page } from "playwright-core";
import { portOf } from "./fault-proxy.ts";
import { spawn, temporaryFolder } from "./owned-process.ts";
import { checkout } from "./program.ts";

/** Debian's, or the one that `HARBORFORGE_TEST_CHROMIUM` names. */
const CHROMIUM = process.env.HARBORFORGE_TEST_CHROMIUM ?? "/usr/bin/chromium";

/** Why pages cannot be tested here; undefined if they can. */
export const missingBrowser = existsSync(CHROMIUM)
  ? undefined
  : `there is no ${CHROMIUM} (Debian: chromium; HARBORFORGE_TEST_CHROMIUM names another one)`;

export interface Browser extends AsyncDisposable {
  /** A new page of this address. */
  open(url: string): Promise<Page>;
}

/** Starts Chromium with an empty profile. */
export async function openBrowser(): Promise<Browser> {
  await using undo = new AsyncDisposableStack();
  const profile = await temporaryFolder("chromium");
  undo.defer(() => rm(profile, { recursive: true, force: true, maxRetries: 10 }));
  const args = ["--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"];
  args.push("--disable-background-networking", "--remote-debugging-port=0", `--user-data-dir=${profile}`);
  // Chromium refuses to run as root with its sandbox.
  if (process.getuid?.() === 0) args.push("--no-sandbox");
  const env = { ...process.env, HOME: profile };
  const child = spawn(CHROMIUM, [...args, "about:blank"], { stdio: ["ignore", "ignore", "pipe"], env });
  undo.defer(async () => {
    const ended = new Promise((resolve) => child.once("exit", resolve));
    if (child.exitCode === null && child.kill("SIGKILL")) await ended;
  });
  const browser = await chromium.connectOverCDP(await debuggerOf(child.stderr));
  undo.defer(() => browser.close());
  const everything = undo.move();
  return {
    async open(url) {
      const context = await browser.newContext();
      const page = await context.newPage();
      await page.goto(url);
      return page;
    },
    [Symbol.asyncDispose]: () => everything.disposeAsync(),
  };
}

async function debuggerOf(stderr: NodeJS.ReadableStream): Promise<string> {
  const lines: string[] = [];
  for await (const line of createInterface({ input: stderr })) {
    const [, url] = /^DevTools listening on (ws:\S+)$/.exec(line) ?? [];
    if (url !== undefined) {
      stderr.resume();
      return url;
    }
    lines.push(line);
  }
  throw new Error(`Chromium did not start:\n${lines.join("\n")}`);
}

/** Serves an empty page with a bundled script, on an origin of its own. */
export async function servePage(script: string): Promise<{ readonly origin: string } & AsyncDisposable> {
  const {
    outputFiles: [bundle],
  } = await build({
    stdin: { contents: script, resolveDir: join(checkout, "packages/client/src"), loader: "ts" },
    bundle: true,
    format: "esm",
    platform: "browser",
    target: "es2022",
    write: false,
  });
  const server = createServer((request, response) => {
    const isScript = request.url === "/page.js";
    response.setHeader("content-type", isScript ? "text/javascript" : "text/html");
    response.end(
      isScript
        ? bundle?.text
        : '<!doctype html><link rel="icon" href="data:,"><script type="module" src="/page.js"></script>',
    );
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    origin: `http://127.0.0.1:${portOf(server)}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
