import { createServiceClients } from "harborforge-agents-client";
import type { Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CREDENTIALS, openMint } from "../support/access.ts";
import { type Browser, missingBrowser, openBrowser, servePage } from "../support/browser.ts";
import { startService, unique } from "../support/service.ts";

/** What the page does, with the library and a transport of connect-web. */
const SCRIPT = `
import { createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";
import { AgentService, AgentStatus } from "harborforge-agents-client/contract";
import { CallError, createAgentCache, typedTransport } from "harborforge-agents-client/watch";

const transports = { connect: createConnectTransport, "grpc-web": createGrpcWebTransport };

globalThis.watchAndClaim = async ({ protocol, baseUrl, agentId, token, credentials }) => {
  const transport = transports[protocol]({
    baseUrl,
    fetch: (input, init) => fetch(input, { ...init, credentials }),
  });
  const agents = createAgentCache({ transport, token, filter: { agentIds: [agentId] }, timeoutMs: 5_000 });
  try {
    const before = await agents.waitFor(({ get }) => get(agentId));
    const service = createClient(AgentService, typedTransport(transport, { token }));
    const claim = { agentId, status: AgentStatus.ON_CALL, expectedRevision: before.revision };
    await service.updateAgentStatus(claim);
    const after = await agents.waitFor(({ get }) => get(agentId)?.status === "on_call" && get(agentId));
    const late = await service.updateAgentStatus(claim).catch((error) => error.reason);
    return { before: before.status, after: after.status, isDate: after.statusChangedAt instanceof Date, late };
  } catch (error) {
    return { failed: error instanceof CallError && error.code, message: error.message };
  } finally {
    await agents.close();
  }
};
`;

if (missingBrowser !== undefined) process.stderr.write(`Pages in browsers are not tried, since ${missingBrowser}.\n`);

describe.skipIf(missingBrowser !== undefined)("a page of another origin than the service's, in Chromium", () => {
  let browser: Browser;
  let page: Awaited<ReturnType<typeof servePage>>;
  const undo = new AsyncDisposableStack();
  beforeAll(async () => {
    page = undo.use(await servePage(SCRIPT));
    browser = undo.use(await openBrowser());
  }, 60_000);
  afterAll(() => undo.disposeAsync());

  /** Runs the page's function. */
  async function run(opened: Page, options: object): Promise<unknown> {
    await opened.waitForFunction("globalThis.watchAndClaim !== undefined");
    return await opened.evaluate(`watchAndClaim(${JSON.stringify(options)})`);
  }

  async function withAgent(allowedOrigins: readonly string[]) {
    const service = await startService({ access: CREDENTIALS, allowedOrigins });
    await using mint = openMint(service.databaseUrl);
    const { secret: token } = await mint.issue({ role: "admin" });
    const agentId = unique("agent");
    const clients = createServiceClients({ address: service.addresses.grpc, token });
    await clients.users.createUser({ username: agentId, agentId, clawIdentifier: "claw-1" });
    clients.close();
    return { service, token, agentId, baseUrl: `http://${service.addresses.http}` };
  }

  test.each([
    ["connect", "omit"],
    ["connect", "include"],
    ["grpc-web", "include"],
  ])(
    "watches and calls the service if its origin is allowed (%s, credentials: %s)",
    async (protocol, credentials) => {
      const { service, ...target } = await withAgent([page.origin]);
      await using _ = service;
      expect(await run(await browser.open(page.origin), { protocol, credentials, ...target })).toEqual({
        before: "idle",
        after: "on_call",
        isDate: true,
        late: "REVISION_MISMATCH",
      });
    },
    60_000,
  );

  test.each([
    ["without the setting", []],
    ["if another origin is allowed", ["https://app.example"]],
  ])(
    "can neither call nor read %s",
    async (_, allowedOrigins) => {
      const { service, ...target } = await withAgent(allowedOrigins);
      await using __ = service;
      const options = { protocol: "connect", credentials: "omit", ...target };
      expect(await run(await browser.open(page.origin), options)).toMatchObject({ failed: "UNAVAILABLE" });
      expect(await service.query("select status from agents")).toEqual([{ status: "idle" }]);
    },
    60_000,
  );
});
