import { createServiceClients } from "harborforge-agents-client";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { Server } from "../../../../src/server.ts";
import { type RunningService, startReplica, startService } from "../../../../test/support/service.ts";
import { until } from "../../../../test/support/until.ts";
import {
  type FakeProvider,
  insufficientQuota,
  paymentRequired,
  rateLimited,
  startFakeProvider,
} from "./fake-provider.ts";
import { findOpenClaw, type GatewayProcess, type GatewayStage, type Model, openGatewayStage } from "./gateway.ts";
import { recoveryWithin, startWatcher, type Watcher } from "./watcher.ts";

// The packed plugin in a real gateway, with a provider that follows a script and a real service. The cases share one gateway, since
// a start takes up to minutes. Each has agents of its own, with accounts of their own.

const openclaw = await findOpenClaw();
if (typeof openclaw === "string") process.stderr.write(`SKIPPED: no test of the OpenClaw plugin ran. ${openclaw}\n`);

const CLAW = "claw-1";
/** A lease is three intervals: 9 s. */
const PACE = { shortestIntervalMs: 3_000, heartbeatsPerSecond: 10_000 };
const OUTAGE_MS = 120_000;

const own = (name: string): Model => ({ primary: `${name}/${name}` });
const AGENTS: Record<string, Model> = {
  main: own("main"),
  bob: own("bob"),
  short: own("short"),
  long: own("long"),
  fallback: { primary: "limited/limited", fallbacks: ["spare/spare"] },
  poor: own("poor"),
  quota: own("quota"),
  mapped: own("mapped"),
  unreported: own("unreported"),
};
const idOf = (agent: string): string => (agent === "mapped" ? "another-name" : `${CLAW}/${agent}`);

describe.skipIf(typeof openclaw === "string")("the plugin in a gateway", () => {
  let undo: AsyncDisposableStack;
  let service: RunningService;
  let replica: Server;
  let provider: FakeProvider;
  let stage: GatewayStage;
  let gateway: GatewayProcess;
  let watcher: Watcher;

  async function enrol(agentId: string): Promise<void> {
    const clients = createServiceClients({ address: service.addresses.grpc });
    await clients.users.createUser({ username: agentId, agentId, clawIdentifier: CLAW });
    clients.close();
  }

  const gates: PromiseWithResolvers<void>[] = [];
  /** Holds responses of the provider until it is resolved, at the latest at the end of the test. */
  function openGate(): PromiseWithResolvers<void> {
    const gate = Promise.withResolvers<void>();
    gates.push(gate);
    return gate;
  }
  afterEach(() => {
    for (const gate of gates.splice(0)) gate.resolve();
    provider.script.clear();
  });

  beforeAll(async () => {
    if (typeof openclaw === "string") return;
    await using made = new AsyncDisposableStack();
    service = made.use(await startService({ pace: PACE }));
    replica = await startReplica(service.databaseUrl, { pace: PACE });
    made.defer(() => replica[Symbol.asyncDispose]());
    provider = made.use(await startFakeProvider());
    for (const agent of Object.keys(AGENTS)) if (agent !== "unreported") await enrol(idOf(agent));
    watcher = made.use(await startWatcher([service.addresses.grpc]));
    stage = made.use(
      await openGatewayStage({
        openclaw,
        providerUrl: provider.url,
        agents: AGENTS,
        config: {
          claw: CLAW,
          address: [replica.addresses.grpc, service.addresses.grpc],
          agents: { mapped: "another-name", unreported: false },
          callEndSeconds: 5,
        },
        imports: [new URL("./stall.mjs", import.meta.url).href],
      }),
    );
    gateway = await stage.start();
    for (const agent of Object.keys(AGENTS).filter((name) => name !== "unreported")) {
      await until(`${agent} sends heartbeats`, async () => (await agentOf(idOf(agent)))?.last_heartbeat);
    }
    undo = made.move();
  });
  afterAll(() => undo?.disposeAsync());

  it("reports every agent of the configuration as idle, under its mapped id", async () => {
    for (const agent of Object.keys(AGENTS)) {
      if (agent === "unreported") continue;
      await until(`${agent} is idle`, async () => (await statusOf(idOf(agent))) === "idle");
    }
    expect(stage.output).not.toContain("agents.unknown");
    expect(stage.output).not.toContain("plugin.failed");
  });

  it("reports one turn as busy, then idle", async () => {
    const since = watcher.transitions.length;
    expect(await gateway.turn("main", "hello")).toContain('"content":"ok"');
    await watcher.sees(idOf("main"), "idle", since);
    expect(watcher.statuses(idOf("main"), since)).toEqual(["busy", "idle"]);
  });

  it("reports two agents at once, and a slow turn until its end", async () => {
    const since = watcher.transitions.length;
    const gate = openGate();
    provider.script.set("bob", [{ kind: "gated", gate: gate.promise }]);
    const turns = [gateway.turn("bob", "slow"), gateway.turn("main", "hello")];
    await watcher.sees(idOf("bob"), "busy", since);
    await turns[1];
    await watcher.sees(idOf("main"), "idle", since);
    expect(watcher.statuses(idOf("bob"), since)).toEqual(["busy"]);
    gate.resolve();
    await Promise.all(turns);
    await watcher.sees(idOf("bob"), "idle", since);
    expect(watcher.statuses(idOf("bob"), since)).toEqual(["busy", "idle"]);
    expect(watcher.statuses(idOf("main"), since)).toEqual(["busy", "idle"]);
  });

  it("reports a turn with two runs of one agent until the last one ends", async () => {
    const since = watcher.transitions.length;
    const gate = openGate();
    provider.script.set("bob", [
      { kind: "gated", gate: gate.promise },
      { kind: "text", text: "ok" },
    ]);
    const slow = gateway.turn("bob", "first");
    await until("the first call", () => (provider.requests.get("bob") ?? 0) >= 2);
    await gateway.turn("bob", "second");
    expect(watcher.statuses(idOf("bob"), since)).toEqual(["busy"]);
    gate.resolve();
    await slow;
    await watcher.sees(idOf("bob"), "idle", since);
    expect(watcher.statuses(idOf("bob"), since)).toEqual(["busy", "idle"]);
  });

  it("stays busy over a short 429", async () => {
    const since = watcher.transitions.length;
    provider.script.set("short", [rateLimited(2), { kind: "text", text: "ok" }]);
    expect(await gateway.turn("short", "hello")).toContain('"content":"ok"');
    await watcher.sees(idOf("short"), "idle", since);
    expect(watcher.statuses(idOf("short"), since)).toEqual(["busy", "idle"]);
  });

  it("reports a long 429 as exhausted until the provider's deadline, and recovers when the run goes on", async () => {
    const since = watcher.transitions.length;
    provider.script.set("long", [rateLimited(30), { kind: "text", text: "ok" }]);
    const turn = gateway.turn("long", "hello");
    const exhausted = await watcher.sees(idOf("long"), "exhausted", since);
    expect(exhausted.exhaustion?.reason).toBe("rate_limit");
    // The provider said 30 s.
    expect(recoveryWithin(exhausted)).toBeGreaterThan(15_000);
    expect(recoveryWithin(exhausted)).toBeLessThan(31_000);
    expect(await turn).toContain('"content":"ok"');
    await until("idle at the end", () => watcher.statuses(idOf("long"), since).at(-1) === "idle");
    expect(watcher.statuses(idOf("long"), since).slice(0, 2)).toEqual(["busy", "exhausted"]);
  });

  it("stays busy while a fallback model responds", async () => {
    const since = watcher.transitions.length;
    provider.script.set("limited", [rateLimited(300)]);
    expect(await gateway.turn("fallback", "hello")).toContain('"content":"ok"');
    await watcher.sees(idOf("fallback"), "idle", since);
    expect(watcher.statuses(idOf("fallback"), since)).toEqual(["busy", "idle"]);
  });

  it("reports a 402 as exhausted until the gateway tries the account again, also when a run is refused without a call", async () => {
    const since = watcher.transitions.length;
    provider.script.set("poor", [paymentRequired]);
    await gateway.turn("poor", "hello");
    const exhausted = await watcher.sees(idOf("poor"), "exhausted", since);
    expect(exhausted.exhaustion?.reason).toBe("billing");
    // The gateway disables the account for ten minutes.
    expect(recoveryWithin(exhausted)).toBeGreaterThan(300_000);
    const calls = provider.requests.get("poor");
    await gateway.turn("poor", "again");
    expect(provider.requests.get("poor")).toBe(calls);
    expect(watcher.statuses(idOf("poor"), since)).toEqual(["busy", "exhausted"]);
  });

  it("reports insufficient_quota as an empty account, and the agent as recovered when another account works", async () => {
    const since = watcher.transitions.length;
    provider.script.set("quota", [insufficientQuota]);
    await gateway.turn("quota", "hello");
    const { exhaustion } = await watcher.sees(idOf("quota"), "exhausted", since);
    expect(exhaustion?.reason).toBe("billing");
    await stage.configure({ ...AGENTS, quota: own("topped") });
    await until(
      "a turn with the other account",
      async () => (await gateway.turn("quota", "again")).includes('"content":"ok"'),
      120_000,
    );
    await until("idle at the end", () => watcher.statuses(idOf("quota"), since).at(-1) === "idle");
    await stage.configure(AGENTS);
  });

  it("reports a sub-agent as work of its agent", async () => {
    const since = watcher.transitions.length;
    const gate = openGate();
    const task = { task: "count to three", label: "counter" };
    provider.script.set("main", [
      { kind: "tool", word: "delegate", name: "sessions_spawn", arguments: task },
      { kind: "text", text: "delegated" },
      { kind: "gated", gate: gate.promise },
    ]);
    const calls = provider.requests.get("main") ?? 0;
    await gateway.turn("main", "delegate this");
    await until("the sub-agent calls its model", () => (provider.requests.get("main") ?? 0) >= calls + 3, 120_000);
    expect(await statusOf(idOf("main"))).toBe("busy");
    gate.resolve();
    await until("idle at the end", () => watcher.statuses(idOf("main"), since).at(-1) === "idle", 120_000);
  });

  it("reports the turn of a cron job", async () => {
    const since = watcher.transitions.length;
    const schedule = ["--at", "1s", "--session", "isolated", "--agent", "bob", "--message", "hello", "--no-deliver"];
    await stage.command("cron", "add", "--name", "soon", ...schedule);
    await watcher.sees(idOf("bob"), "busy", since);
    await watcher.sees(idOf("bob"), "idle", since);
  });

  it("reports a turn of a voice session as a call, until a while after it", async () => {
    const since = watcher.transitions.length;
    await gateway.turn("mapped", "hello", "agent:mapped:voice:call-1");
    await watcher.sees(idOf("mapped"), "idle", since);
    expect(watcher.statuses(idOf("mapped"), since)).toEqual(["on_call", "idle"]);
  });

  it("shows the agents with openclaw harborforge status", async () => {
    const shown = await stage.command("harborforge", "status");
    expect(shown).toContain("connected");
    expect(shown).toMatch(/poor +claw-1\/poor +exhausted \(billing until /);
    expect(shown).toMatch(/mapped +another-name +idle +idle +beating/);
    expect(shown).not.toContain("unreported");
  });

  it("reports an agent that a reload adds, and says goodbye for one that a reload removes", async () => {
    const since = watcher.transitions.length;
    await enrol(idOf("late"));
    const { short: _removed, ...rest } = AGENTS;
    await stage.configure({ ...rest, late: own("late") });
    await until("late sends heartbeats", async () => (await agentOf(idOf("late")))?.last_heartbeat, 120_000);
    expect(await gateway.turn("late", "hello")).toContain('"content":"ok"');
    await watcher.sees(idOf("late"), "busy", since);
    expect((await watcher.sees(idOf("short"), "offline", since)).cause).toBe("goodbye");
  });

  it("tells once how to create agents that the service does not know", async () => {
    await stage.configure({ ...AGENTS, stranger: own("stranger") });
    await until("the log line", () => stage.output.includes("agents.unknown"), 120_000);
    expect(stage.output).toContain(`harborforge-agents agents enrol --claw ${CLAW} --from openclaw.json`);
    expect(stage.output.split("agents.unknown").length).toBe(2);
  });

  it("keeps its agents online while the event loop is blocked for 40 s", async () => {
    const since = watcher.transitions.length;
    gateway.signal("SIGUSR2");
    await until("blocked", () => stage.output.includes("the event loop is blocked"));
    await until("free", () => stage.output.includes("the event loop runs again"), 120_000);
    await gateway.turn("main", "hello");
    await watcher.sees(idOf("main"), "busy", since);
    expect(watcher.transitions.slice(since).filter(({ to }) => to === "offline")).toEqual([]);
  });

  it("keeps its agents online when its replica stops", async () => {
    const since = watcher.transitions.length;
    await replica[Symbol.asyncDispose]();
    await gateway.turn("main", "hello");
    await watcher.sees(idOf("main"), "idle", since);
    expect(watcher.transitions.slice(since).filter(({ to }) => to === "offline")).toEqual([]);
  });

  it("reports what is true when the service was away for two minutes", async () => {
    const { grpc, http } = service.addresses;
    const gate = openGate();
    provider.script.set("bob", [{ kind: "gated", gate: gate.promise }]);
    await service.server[Symbol.asyncDispose]();
    const turn = gateway.turn("bob", "while the service is away");
    await new Promise((resolve) => setTimeout(resolve, OUTAGE_MS));
    const address = (url: string): string => url.replace("http://", "");
    undo.use(
      await startReplica(service.databaseUrl, { pace: PACE, grpcAddress: address(grpc), httpAddress: address(http) }),
    );
    await until("bob is busy", async () => (await statusOf(idOf("bob"))) === "busy", 120_000);
    expect(await statusOf(idOf("main"))).toBe("idle");
    gate.resolve();
    await turn;
    await until("bob is idle", async () => (await statusOf(idOf("bob"))) === "idle");
  });

  it("says goodbye at SIGTERM, also during a turn", async () => {
    const since = watcher.transitions.length;
    const gate = openGate();
    provider.script.set("bob", [{ kind: "gated", gate: gate.promise }]);
    const turn = gateway.turn("bob", "slow").catch(() => "cut off");
    await watcher.sees(idOf("bob"), "busy", since);
    gateway.signal("SIGTERM");
    // The gateway waits for the turn, for minutes if it has to.
    gate.resolve();
    const { cause } = await watcher.sees(idOf("main"), "offline", since);
    await Promise.all([turn, gateway.ended]);
    expect(cause).toBe("goodbye");
    expect((await watcher.sees(idOf("bob"), "offline", since)).cause).toBe("goodbye");
  });

  it("is offline by its lease after kill -9", async () => {
    const before = watcher.transitions.length;
    gateway = await stage.start();
    await watcher.sees(idOf("main"), "idle", before);
    const since = watcher.transitions.length;
    gateway.signal("SIGKILL");
    expect((await watcher.sees(idOf("main"), "offline", since)).cause).toBe("lease_expired");
  });

  async function agentOf(agentId: string) {
    const [row] = await service.query<{ status: string; last_heartbeat: Date | null }>(
      "SELECT status, last_heartbeat FROM agent_states WHERE agent_id = $1",
      agentId,
    );
    return row;
  }
  async function statusOf(agentId: string): Promise<string | undefined> {
    return (await agentOf(agentId))?.status;
  }
});
