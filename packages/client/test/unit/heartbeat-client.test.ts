import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, createRouterTransport, type ServiceImpl } from "@connectrpc/connect";
import { afterEach, describe, expect, it, onTestFinished, vi } from "vitest";
import {
  AgentService,
  type HeartbeatRequest,
  HeartbeatRequestSchema,
  HeartbeatResponseSchema,
} from "../../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { ErrorReason } from "../../../../gen/harborforge/agents/v1/error_reason_pb.ts";
import { Health } from "../../../../gen/health/v1/health_pb.ts";
import { Refusal } from "../../../../src/domain/errors.ts";
import { readFields, readName } from "../../../../src/domain/validation.ts";
import { createFakeBackend } from "../../../../test/support/fake-backend.ts";
import { createInMemoryClients } from "../../../../test/support/in-memory-clients.ts";
import { PATIENCE } from "../../../../test/support/until.ts";
import { CallError } from "../../src/connection/call-error.ts";
import { checkName } from "../../src/heartbeats/check-name.ts";
import { createHeartbeatClient, type HeartbeatClientOptions } from "../../src/heartbeats/heartbeat-client.ts";
import { ReportError } from "../../src/heartbeats/report-error.ts";

function start(options: Partial<HeartbeatClientOptions> = {}) {
  const backend = createFakeBackend();
  for (const agentId of ["a", "b", "c"]) backend.put(agentId);
  const { transport } = createInMemoryClients(backend);
  const client = createHeartbeatClient({ transport, claw: "claw-1", ...options });
  onTestFinished(() => client.close({ withinMs: 0 }));
  const session = async (index: number) => await vi.waitUntil(() => backend.sessions[index], PATIENCE);
  /** A service's change of an agent, pushed on the newest stream. */
  const serve = (agentId: string, change: Parameters<typeof backend.put>[1]) => {
    const { status, exhaustion, revision } = backend.put(agentId, change);
    backend.sessions.at(-1)?.say({ messages: [{ kind: "change", agentId, status, exhaustion, revision }] });
    return revision;
  };
  /** Rejects the newest beat of an agent. */
  const refuse = (agentId: string, reason: Refusal["reason"], sequence = 0n) => {
    const { status, exhaustion, revision } = backend.put(agentId);
    const refusal = new Refusal(reason, "No.");
    backend.sessions.at(-1)?.say({
      messages: [{ kind: "result", agentId, status, exhaustion, revision, refusal, sequence, beatIndex: 0 }],
    });
  };
  return { backend, client, session, serve, refuse };
}

const rejection = async (promise: Promise<unknown>): Promise<ReportError> => {
  const thrown = await promise.then(
    () => undefined,
    (error: unknown) => error,
  );
  if (!(thrown instanceof ReportError)) throw new Error(`no ReportError: ${String(thrown)}`);
  return thrown;
};

describe("a report", () => {
  it("is sent at once, and resolves when it is acknowledged", async () => {
    const { backend, client, session } = start();
    const agent = client.agent("a");
    const first = await session(0);
    await vi.waitUntil(() => first.submitted.length === 1, PATIENCE);
    backend.acknowledging = false;
    let outcome: string | undefined;
    const busy = agent.busy().then((value) => {
      outcome = value;
    });
    await vi.waitUntil(() => first.submitted.length === 2, PATIENCE);
    expect(first.submitted[1]).toMatchObject({ sequence: 2n, beats: [{ agentId: "a", beat: { report: "busy" } }] });
    expect(outcome).toBeUndefined();
    first.say({ acknowledgedSequence: 2n });
    await busy;
    expect(outcome).toBe("applied");
    expect(agent.status).toBe("busy");
  });

  it("is replaced by a newer one, and the newest alone is kept", async () => {
    const { backend, client, session } = start();
    backend.acknowledging = false;
    const agent = client.agent("a");
    const first = await session(0);
    const words = [agent.idle(), agent.onCall(), agent.busy()];
    await vi.waitUntil(
      () => first.submitted.flatMap(({ beats }) => beats).some((beat) => "beat" in beat && beat.beat.report === "busy"),
      PATIENCE,
    );
    backend.acknowledging = true;
    first.fail(new ConnectError("gone", Code.Unavailable));
    expect(await Promise.all(words)).toEqual(["overtaken", "overtaken", "applied"]);
  });

  it("that was not acknowledged is sent again on the next stream, under a higher generation", async () => {
    const { backend, client, session } = start();
    const agent = client.agent("a");
    const first = await session(0);
    await vi.waitUntil(() => first.submitted.length === 1, PATIENCE);
    backend.acknowledging = false;
    const done = agent.exhausted({ reason: "rate_limit", retryAfterMs: 1_500 });
    await vi.waitUntil(() => first.submitted.length === 2, PATIENCE);
    backend.acknowledging = true;
    first.fail(new ConnectError("the connection is gone", Code.Unavailable));
    expect(await done).toBe("applied");
    const second = await session(1);
    expect(second.options.instanceId).toBe(client.instanceId);
    expect(second.options.generation > first.options.generation).toBe(true);
    expect(second.submitted[0]?.beats).toMatchObject([
      { beat: { report: { exhausted: { reason: "rate_limit", retryAfterMs: 1_500 } } } },
    ]);
  });

  it("that is held off rejects with the service's change, which the agent adopts", async () => {
    const { backend, client, session, refuse } = start();
    const agent = client.agent("a");
    const heard: unknown[] = [];
    agent.on("refused", ({ reason }) => heard.push(reason));
    agent.on("status", ({ status }) => heard.push(status));
    const first = await session(0);
    await vi.waitUntil(() => first.submitted.length === 1, PATIENCE);
    backend.acknowledging = false;
    const report = rejection(agent.idle());
    await vi.waitUntil(() => first.submitted.length === 2, PATIENCE);
    backend.put("a", { status: "on_call" });
    refuse("a", "REPORT_OUTDATED", 2n);
    expect(await report).toMatchObject({
      name: "ReportError",
      agentId: "a",
      reason: "REPORT_OUTDATED",
      status: "on_call",
    });
    expect(heard).toEqual(["REPORT_OUTDATED", "on_call"]);
    expect(agent).toMatchObject({ status: "on_call", presence: "beating" });
  });

  it.each([false, true])("with a reason that does not exist is rejected at once (worker: %s)", async (worker) => {
    const unhandled = vi.fn();
    process.on("unhandledRejection", unhandled);
    onTestFinished(() => void process.off("unhandledRejection", unhandled));
    const client = createHeartbeatClient({ address: "127.0.0.1:1", claw: "claw-1", worker });
    const agent = client.agent("a");
    for (const reason of ["unheard_of", () => "billing", Symbol("billing")]) {
      // Like a program without types.
      const said: Promise<unknown> = Reflect.apply(agent.exhausted, agent, [{ reason }]);
      await expect(said).rejects.toThrow("reason is unknown. Use one of rate_limit, billing.");
    }
    await client.close({ withinMs: 0 });
    await new Promise((resolve) => setImmediate(resolve));
    expect(unhandled).not.toHaveBeenCalled();
  });

  it.each([
    false,
    true,
  ])("is sent again after the token function throws a value that has no text (worker: %s)", async (worker) => {
    const unhandled = vi.fn();
    process.on("unhandledRejection", unhandled);
    onTestFinished(() => void process.off("unhandledRejection", unhandled));
    let asked = 0;
    const token = (): string => {
      asked += 1;
      throw asked % 2 === 0
        ? Object.create(null)
        : Object.defineProperty(new Error(), "message", {
            get() {
              throw new Error("no message either");
            },
          });
    };
    const client = createHeartbeatClient({ address: "127.0.0.1:1", claw: "claw-1", worker, token });
    client.agent("a");
    await vi.waitUntil(() => asked >= 3, PATIENCE);
    await client.close({ withinMs: 0 });
    expect(unhandled).not.toHaveBeenCalled();
  });

  it("may be rejected without a handler", async () => {
    const { client, session, refuse } = start();
    const unhandled = vi.fn();
    process.on("unhandledRejection", unhandled);
    onTestFinished(() => void process.off("unhandledRejection", unhandled));
    void client.agent("a").busy();
    await session(0);
    refuse("a", "SESSION_SUPERSEDED");
    await vi.waitUntil(() => client.agent("a").presence === "superseded", PATIENCE);
    await new Promise((resolve) => setImmediate(resolve));
    expect(unhandled).not.toHaveBeenCalled();
  });

  it("ends its wait with the signal, and is sent all the same", async () => {
    const { backend, client, session } = start();
    backend.acknowledging = false;
    const stop = new AbortController();
    const waiting = client.agent("a").busy({ signal: stop.signal });
    const first = await session(0);
    await vi.waitUntil(() => first.submitted.length > 0, PATIENCE);
    stop.abort(new Error("enough"));
    await expect(waiting).rejects.toThrow("enough");
    backend.acknowledging = true;
    first.fail(new ConnectError("gone", Code.Unavailable));
    const second = await session(1);
    await vi.waitUntil(() => second.submitted.length > 0, PATIENCE);
    expect(second.submitted[0]?.beats).toMatchObject([{ beat: { report: "busy" } }]);
  });

  it("with a deadline that is not a number is rejected by the client", async () => {
    const { client } = start();
    const agent = client.agent("a");
    const invalid = { name: "ReportError", code: "INVALID_ARGUMENT", reason: "INVALID_FIELD" };
    expect(await rejection(agent.exhausted({ reason: "billing", retryAfterMs: Number.NaN }))).toMatchObject({
      ...invalid,
      metadata: { field: "retryAfterMs" },
    });
    expect(await rejection(agent.exhausted({ reason: "billing", recoveryAt: new Date("never") }))).toMatchObject({
      ...invalid,
      metadata: { field: "recoveryAt" },
    });
  });

  it("with a deadline that no message can carry is rejected by the client, and its stream stays open", async () => {
    const { backend, client } = start();
    const agent = client.agent("a");
    await agent.busy();
    for (const retryAfterMs of [367 * 24 * 3_600_000, 1e300, Number.MAX_VALUE]) {
      const report = rejection(agent.exhausted({ reason: "rate_limit", retryAfterMs }));
      expect(await report).toMatchObject({ reason: "INVALID_FIELD", metadata: { field: "retryAfterMs" } });
    }
    expect(await client.agent("b").busy()).toBe("applied");
    expect(await agent.exhausted({ reason: "rate_limit", retryAfterMs: 366 * 24 * 3_600_000 })).toBe("applied");
    expect(backend.sessions).toHaveLength(1);
  });
});

describe("a service that is not reached", () => {
  /** Nothing listens there. */
  const address = "127.0.0.1:1";

  it.each([
    false,
    true,
  ])("rejects the first reports within the timeout, and they are kept (worker: %s)", async (worker) => {
    const client = createHeartbeatClient({ address, claw: "claw-1", timeoutMs: 300, onListenerError: vi.fn(), worker });
    onTestFinished(() => client.close({ withinMs: 0 }));
    const tried = new Promise<void>((resolve) => client.on("connection", () => resolve()));
    const agent = client.agent("a");
    // A worker takes time to start.
    await tried;
    const error = await rejection(agent.busy());
    expect(error).toBeInstanceOf(CallError);
    expect(error).toMatchObject({ code: "UNAVAILABLE", reason: "NOT_CONNECTED", metadata: {}, agentId: "a" });
    expect(error.message).toMatch(
      /^not connected within 300 ms: connect ECONNREFUSED .*\. The client goes on trying\.$/,
    );
    expect(agent.presence).toBe("beating");
  });

  it("is reported once by onListenerError if nothing listens to `connection`", async () => {
    const onListenerError = vi.fn();
    const client = createHeartbeatClient({ address, claw: "claw-1", timeoutMs: 100, onListenerError });
    onTestFinished(() => client.close({ withinMs: 0 }));
    client.agent("a");
    client.agent("b");
    await vi.waitUntil(() => onListenerError.mock.calls.length > 0, PATIENCE);
    expect(onListenerError.mock.calls).toMatchObject([[{ name: "CallError", reason: "NOT_CONNECTED" }]]);

    const heard = vi.fn();
    const listened = createHeartbeatClient({ address, claw: "claw-1", timeoutMs: 100, onListenerError: heard });
    onTestFinished(() => listened.close({ withinMs: 0 }));
    listened.on("connection", () => undefined);
    await rejection(listened.agent("a").busy());
    expect(heard).not.toHaveBeenCalled();
  });

  it("is waited for without a limit when the timeout is 0, and after a connection", async () => {
    const patient = createHeartbeatClient({ address, claw: "claw-1", timeoutMs: 0 });
    const early = rejection(patient.agent("a").busy());
    const { backend, client, session } = start({ timeoutMs: 200 });
    const agent = client.agent("a");
    await agent.idle();
    backend.acknowledging = false;
    let settled = false;
    const report = agent.busy().finally(() => {
      settled = true;
    });
    const late = createHeartbeatClient({ address, claw: "claw-1", timeoutMs: 400, onListenerError: vi.fn() });
    onTestFinished(() => late.close({ withinMs: 0 }));
    // Begun after the others, with a longer limit.
    await rejection(late.agent("a").busy());
    expect(settled).toBe(false);
    backend.acknowledging = true;
    (await session(0)).fail(new ConnectError("gone", Code.Unavailable));
    expect(await report).toBe("applied");
    await patient.close({ withinMs: 0 });
    expect(await early).toMatchObject({ reason: "CLIENT_CLOSED" });
  });

  it("makes a timeout out of range an error of the program", () => {
    for (const timeoutMs of [-1, 0.5, Number.NaN, 2 ** 31]) {
      expect(() => createHeartbeatClient({ address, claw: "claw-1", timeoutMs })).toThrow(RangeError);
    }
  });
});

describe("a service without its database", () => {
  it("accepts streams and acknowledges nothing, which is no connection", async () => {
    const { backend, client, session } = start();
    const states: string[] = [];
    client.on("connection", ({ state }) => states.push(state));
    const agent = client.agent("a");
    await agent.idle();
    backend.acknowledging = false;
    for (const turn of [0, 1, 2]) {
      const stream = await session(turn);
      if (turn > 0) await vi.waitUntil(() => stream.submitted.length > 0, PATIENCE);
      if (turn === 2) backend.acknowledging = true;
      stream.fail(new Refusal("DATABASE_UNAVAILABLE", "Try another one.", { retryAfterMs: 1 }));
    }
    const last = await session(3);
    await vi.waitUntil(() => last.submitted.length > 0 && states.at(-1) === "connected", PATIENCE);
    expect(states).toEqual(["connected", "waiting", "waiting", "waiting", "connected"]);
  });
});

describe("an agent that another process took over", () => {
  it("is left alone until it is claimed", async () => {
    const { client, session, refuse } = start();
    const agent = client.agent("a");
    client.agent("b");
    const first = await session(0);
    await vi.waitUntil(() => first.submitted.length > 0, PATIENCE);
    const superseded = vi.fn();
    agent.on("superseded", superseded);
    refuse("a", "SESSION_SUPERSEDED");
    await vi.waitUntil(() => superseded.mock.calls.length === 1, PATIENCE);
    const before = first.submitted.length;
    expect(await rejection(agent.busy())).toMatchObject({ reason: "SESSION_SUPERSEDED" });
    await client.agent("b").busy();
    const since = first.submitted.slice(before).flatMap(({ beats }) => beats);
    expect(since.map(({ agentId }) => agentId)).not.toContain("a");
    agent.claim();
    expect(await agent.busy()).toBe("applied");
    expect(agent.presence).toBe("beating");
  });

  it("is claimed first, resumed by each further stream, and claimed again only by its program", async () => {
    const { backend, client, session, refuse } = start();
    const agent = client.agent("a");
    const startsOf = async (index: number) => {
      const { submitted } = await session(index);
      await vi.waitUntil(() => submitted.length > 0, PATIENCE);
      return submitted.flatMap(({ beats }) => beats).map((beat) => ("start" in beat ? beat.start : "refused"));
    };
    expect(await agent.busy()).toBe("applied");
    expect((await startsOf(0))[0]).toBe("first");
    (await session(0)).fail(new ConnectError("gone", Code.Unavailable));
    expect(await startsOf(1)).toEqual(["resume"]);
    refuse("a", "SESSION_SUPERSEDED", 1n);
    await vi.waitUntil(() => agent.presence === "superseded", PATIENCE);
    expect(await rejection(agent.busy())).toMatchObject({ reason: "SESSION_SUPERSEDED" });
    agent.claim();
    expect(await agent.busy()).toBe("applied");
    expect((await startsOf(2))[0]).toBe("anew");
    backend.sessions.at(-1)?.fail(new ConnectError("gone", Code.Unavailable));
    expect(await startsOf(3)).toEqual(["resume"]);
    expect(await agent.leave()).toBe("applied");
    expect(await agent.idle()).toBe("applied");
    expect((await startsOf(3)).filter((one) => one !== undefined)).toEqual(["resume", "anew"]);
  });

  it("is claimed on one newer stream for all such agents, and streams without agents end", async () => {
    const { client, session, refuse, backend } = start();
    const agents = ["a", "b"].map((agentId) => client.agent(agentId));
    const first = await session(0);
    await vi.waitUntil(() => first.submitted.length > 0, PATIENCE);
    for (const { agentId } of agents) refuse(agentId, "SESSION_SUPERSEDED");
    await vi.waitUntil(() => agents.every(({ presence }) => presence === "superseded"), PATIENCE);
    const before = first.submitted.length;
    for (const agent of agents) agent.claim();
    for (const agent of agents) expect(await agent.busy()).toBe("applied");
    const second = await session(1);
    expect(second.submitted[0]).toMatchObject({ beats: [{ agentId: "a" }, { agentId: "b" }] });
    expect(first.submitted).toHaveLength(before);
    await vi.waitUntil(() => first.closed, PATIENCE);
    expect(backend.sessions).toHaveLength(2);
  });
});

describe("an agent of another claw", () => {
  it("rejects its report with the reason, emits one event, and is tried again by its next report", async () => {
    const { client, session, refuse, backend } = start();
    const agent = client.agent("a");
    const refused = vi.fn();
    agent.on("refused", refused);
    const first = await session(0);
    await vi.waitUntil(() => first.submitted.length > 0, PATIENCE);
    backend.acknowledging = false;
    const report = rejection(agent.busy());
    refuse("a", "WRONG_CLAW");
    expect(await report).toMatchObject({ reason: "WRONG_CLAW" });
    expect(agent.presence).toBe("refused");
    expect(refused).toHaveBeenCalledTimes(1);
    backend.acknowledging = true;
    const before = first.submitted.length;
    expect(await agent.busy()).toBe("applied");
    // A retry claims no agent that another process may have taken meanwhile; its program may.
    const starts = first.submitted.slice(before).flatMap(({ beats }) => beats);
    expect(starts).toMatchObject([{ agentId: "a", start: "resume" }]);
    refuse("a", "WRONG_CLAW");
    await vi.waitUntil(() => agent.presence === "refused", PATIENCE);
    agent.claim();
    await vi.waitUntil(
      () => first.submitted.at(-1)?.beats.some((beat) => "start" in beat && beat.start === "anew"),
      PATIENCE,
    );
  });
});

describe("the state that the service sends", () => {
  it("is emitted if it differs from the agent's report, and its revision is sent back as known", async () => {
    const { client, session, serve } = start();
    const agent = client.agent("a");
    const heard: string[] = [];
    agent.on("status", ({ status }) => heard.push(status));
    await agent.busy();
    const first = await session(0);
    const revision = serve("a", { status: "on_call" });
    await vi.waitUntil(() => agent.status === "on_call", PATIENCE);
    expect(heard).toEqual(["on_call"]);
    await agent.busy();
    expect(first.submitted.at(-1)?.beats).toMatchObject([{ beat: { report: "busy", knownRevision: revision } }]);
  });

  it("reaches every listener although one of them throws", async () => {
    const onListenerError = vi.fn();
    const { client, session, serve } = start({ onListenerError });
    const agent = client.agent("a");
    const heard = vi.fn();
    agent.on("status", () => {
      throw new Error("mine");
    });
    const unsubscribe = agent.on("status", heard);
    await agent.idle();
    await session(0);
    serve("a", { status: "on_call" });
    await vi.waitUntil(() => heard.mock.calls.length === 1, PATIENCE);
    expect(onListenerError).toHaveBeenCalledWith(expect.objectContaining({ message: "mine" }));
    unsubscribe();
    serve("a", { status: "busy" });
    await vi.waitUntil(() => agent.status === "busy", PATIENCE);
    expect(heard).toHaveBeenCalledTimes(1);
  });
});

describe("a listener that fails", () => {
  const unhandled = vi.fn();
  const watchProcess = (): void => {
    unhandled.mockReset();
    for (const name of ["unhandledRejection", "uncaughtException"] as const) {
      process.on(name, unhandled);
      onTestFinished(() => void process.off(name, unhandled));
    }
  };
  const warnings = (): unknown[] => {
    const heard: unknown[] = [];
    const listener = (warning: Error): void => void heard.push(warning.message);
    process.on("warning", listener);
    onTestFinished(() => void process.off("warning", listener));
    return heard;
  };

  it("is reported when its promise is rejected", async () => {
    watchProcess();
    const onListenerError = vi.fn();
    const { client, session } = start({ onListenerError });
    client.on("connection", async () => {
      throw new Error("asynchronous");
    });
    client.agent("a");
    await session(0);
    await vi.waitUntil(() => onListenerError.mock.calls.length > 0, PATIENCE);
    expect(onListenerError).toHaveBeenCalledWith(expect.objectContaining({ message: "asynchronous" }));
    expect(unhandled).not.toHaveBeenCalled();
  });

  it("becomes a warning when the error report fails too, and beats continue", async () => {
    watchProcess();
    const heard = warnings();
    const reports = [
      () => {
        throw new Error("the report failed");
      },
      () => Promise.reject(new Error("the report failed later")),
    ];
    for (const onListenerError of reports) {
      const { client, backend } = start({ onListenerError });
      client.on("connection", () => {
        throw new Error("mine");
      });
      expect(await client.agent("a").busy()).toBe("applied");
      backend.sessions.at(-1)?.fail(new ConnectError("gone", Code.Unavailable));
      expect(await client.agent("a").idle()).toBe("applied");
    }
    await vi.waitUntil(
      () => heard.includes("the report failed") && heard.includes("the report failed later"),
      PATIENCE,
    );
    expect(unhandled).not.toHaveBeenCalled();
  });

  it("may throw a value that cannot be converted to a string", async () => {
    watchProcess();
    const heard = warnings();
    const { client } = start();
    client.on("connection", () => {
      throw Object.create(null);
    });
    expect(await client.agent("a").busy()).toBe("applied");
    await vi.waitUntil(() => heard.length > 0, PATIENCE);
    expect(unhandled).not.toHaveBeenCalled();
  });
});

describe("close()", () => {
  it("does not wait for a token that never comes", async () => {
    const { client } = start({ token: () => new Promise<string>(() => undefined) });
    const report = rejection(client.agent("a").busy());
    await client.close({ withinMs: 50 });
    expect(await report).toMatchObject({ reason: "CLIENT_CLOSED" });
  });

  it("accepts a timeout of any length", async () => {
    const heard: unknown[] = [];
    const listener = (warning: Error): void => void heard.push(warning);
    process.on("warning", listener);
    onTestFinished(() => void process.off("warning", listener));
    const { backend, client, session } = start();
    client.agent("a");
    const first = await session(0);
    await vi.waitUntil(() => first.submitted.length === 1, PATIENCE);
    backend.acknowledging = false;
    void client.agent("a").busy();
    await vi.waitUntil(() => first.submitted.length === 2, PATIENCE);
    const closed = client.close({ withinMs: Number.POSITIVE_INFINITY });
    await vi.waitUntil(() => first.submitted.length >= 3, PATIENCE);
    first.say({ acknowledgedSequence: BigInt(first.submitted.length) });
    await closed;
    expect(heard).toEqual([]);
  });

  it("sends unacknowledged reports, then goodbyes", async () => {
    const { client, session } = start();
    const agent = client.agent("a");
    client.agent("b");
    const first = await session(0);
    await vi.waitUntil(() => first.submitted.length > 0, PATIENCE);
    const exhausted = agent.exhausted({ reason: "billing" });
    await client.close();
    expect(await exhausted).toBe("applied");
    expect(first.submitted.at(-1)?.beats).toMatchObject([
      { agentId: "a", beat: { report: { exhausted: { reason: "billing" } } } },
      { agentId: "a", leaving: true },
      { agentId: "b", leaving: true },
    ]);
    expect(await rejection(agent.busy())).toMatchObject({ reason: "CLIENT_CLOSED" });
    expect(agent.presence).toBe("left");
  });

  it("without goodbyes waits for the reports alone", async () => {
    const { client, session } = start();
    const busy = client.agent("a").busy();
    await client.close({ goodbye: false });
    expect(await busy).toBe("applied");
    const beats = (await session(0)).submitted.flatMap((message) => message.beats);
    expect(beats).not.toContainEqual(expect.objectContaining({ leaving: true }));
  });

  it("does not wait for the pause before the next stream", async () => {
    const { client, session } = start();
    const agent = client.agent("a");
    const first = await session(0);
    await vi.waitUntil(() => first.submitted.length > 0, PATIENCE);
    first.fail(new Refusal("DRAINING", "This replica stops.", { retryAfterMs: 60_000 }));
    await new Promise<void>((resolve) => {
      client.on("connection", ({ state }) => state === "waiting" && resolve());
    });
    await client.close({ withinMs: 10_000 });
    expect((await session(1)).submitted.at(-1)?.beats).toMatchObject([{ agentId: "a", leaving: true }]);
    expect(agent.presence).toBe("left");
  });

  it("waits no longer than its limit, and rejects the open reports", async () => {
    const { backend, client, session } = start();
    backend.acknowledging = false;
    const report = rejection(client.agent("a").busy());
    await session(0);
    await client.close({ withinMs: 30 });
    expect(await report).toMatchObject({ reason: "CLIENT_CLOSED" });
  });

  it("of one agent is its goodbye; a report brings it back", async () => {
    const { client, session } = start();
    const agent = client.agent("a");
    client.agent("b");
    const first = await session(0);
    await vi.waitUntil(() => first.submitted.length > 0, PATIENCE);
    const [left, back] = [agent.leave(), agent.busy()];
    expect([await left, await back]).toEqual(["applied", "applied"]);
    expect(agent).toMatchObject({ status: "busy", presence: "beating" });
    expect(client.agent("a")).toBe(agent);
  });
});

describe("a service that rejects the whole stream", () => {
  it("rejects the promises; the report is kept and sent when the service accepts the stream", async () => {
    const requests: HeartbeatRequest[] = [];
    let permitted = false;
    const transport = serverOf({
      async *heartbeat(incoming) {
        if (!permitted) throw new ConnectError("Show who you are.", Code.Unauthenticated);
        yield { nextHeartbeatIn: { seconds: 10n }, leaseTtl: { seconds: 30n } };
        for await (const request of incoming) {
          requests.push(request);
          yield { acknowledgedSequence: request.sequence };
        }
      },
    });
    const { client } = start({ transport, token: () => "secret" });
    const error = await rejection(client.agent("a").busy());
    expect(error).toMatchObject({ reason: "STREAM_REFUSED", cause: { code: "UNAUTHENTICATED" } });
    permitted = true;
    await vi.waitUntil(() => requests.length > 0, PATIENCE);
    expect(requests[0]?.beats).toMatchObject([{ agentId: "a", status: 3 }]);
  });
});

describe("the limits of the first response", () => {
  it("split messages, by beats and by bytes, and open further streams", async () => {
    const streams: HeartbeatRequest[][] = [];
    const transport = serverOf({
      async *heartbeat(incoming) {
        const requests: HeartbeatRequest[] = [];
        streams.push(requests);
        yield {
          nextHeartbeatIn: { seconds: 10n },
          leaseTtl: { seconds: 30n },
          limits: { maxBeats: 4, maxMessageBytes: 2_000, maxAgents: 10 },
        };
        for await (const request of incoming) {
          requests.push(request);
          yield { acknowledgedSequence: request.sequence };
        }
      },
    });
    const { client } = start({ transport });
    const agents = Array.from({ length: 23 }, (_, index) =>
      client.agent(`${"x".repeat(index % 2 === 0 ? 1 : 120)}${index}`),
    );
    expect(new Set(await Promise.all(agents.map((agent) => agent.busy())))).toEqual(new Set(["applied"]));
    const sizes = streams.map(
      (requests) => new Set(requests.flatMap(({ beats }) => beats.map(({ agentId }) => agentId))).size,
    );
    expect(sizes).toEqual([10, 10, 3]);
    for (const request of streams.flat()) {
      expect(request.beats.length).toBeLessThanOrEqual(4);
      expect(
        JSON.stringify(create(HeartbeatRequestSchema, request).beats.map(({ agentId }) => agentId)).length,
      ).toBeLessThan(2_000);
    }
    const generations = streams.map((requests) => requests[0]?.generation ?? 0n);
    expect([...generations].sort()).toEqual(generations);
    expect(new Set(generations).size).toBe(3);
  });
});

describe("with a fake clock, a client", () => {
  afterEach(() => void vi.useRealTimers());

  /** A server that counts messages, and stays silent on request. */
  function clockwork() {
    vi.useFakeTimers();
    const streams: { readonly messages: HeartbeatRequest[] }[] = [];
    const server = { streams, silent: false, answers: true, intervalMs: 10_000 };
    const transport = serverOf(
      {
        async *heartbeat(incoming, { signal }) {
          const stream = { messages: [] as HeartbeatRequest[] };
          streams.push(stream);
          yield { nextHeartbeatIn: { seconds: BigInt(server.intervalMs / 1_000) }, leaseTtl: { seconds: 30n } };
          for await (const request of incoming) {
            stream.messages.push(request);
            if (server.silent) await new Promise((resolve) => signal.addEventListener("abort", resolve));
            yield {
              acknowledgedSequence: request.sequence,
              nextHeartbeatIn: { seconds: BigInt(server.intervalMs / 1_000) },
            };
          }
        },
      },
      (_, { signal }) => (server.answers ? {} : new Promise(() => signal.throwIfAborted())),
    );
    const { client } = start({ transport });
    client.agent("a");
    return { client, server };
  }

  it("beats at the pace that the server sets, also when it changes", async () => {
    const { server } = clockwork();
    await vi.advanceTimersByTimeAsync(100);
    const messages = () => server.streams[0]?.messages.length;
    expect(messages()).toBe(1);
    await vi.advanceTimersByTimeAsync(30_000);
    expect(messages()).toBe(4);
    server.intervalMs = 2_000;
    await vi.advanceTimersByTimeAsync(10_000);
    expect(messages()).toBe(5);
    await vi.advanceTimersByTimeAsync(10_000);
    expect(messages()).toBe(10);
    expect(server.streams).toHaveLength(1);
  });

  it("opens another stream at once when the machine slept", async () => {
    const { server } = clockwork();
    await vi.advanceTimersByTimeAsync(100);
    vi.setSystemTime(Date.now() + 3_600_000);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(server.streams).toHaveLength(2);
    expect(server.streams[1]?.messages).toHaveLength(1);
  });

  it("keeps the stream when the clock is set back, or drifts", async () => {
    const { server } = clockwork();
    await vi.advanceTimersByTimeAsync(100);
    vi.setSystemTime(Date.now() - 3_600_000);
    await vi.advanceTimersByTimeAsync(1_000);
    vi.setSystemTime(Date.now() + 1_500);
    await vi.advanceTimersByTimeAsync(25_000);
    expect(server.streams).toHaveLength(1);
  });

  it("leaves a connection without acknowledgements and answered pings, before the lease ends", async () => {
    const { server } = clockwork();
    await vi.advanceTimersByTimeAsync(100);
    server.silent = true;
    server.answers = false;
    await vi.advanceTimersByTimeAsync(20_000);
    expect(server.streams.length).toBeGreaterThan(1);
  });

  it("stays while pings are answered without acknowledgements, because the database may be away", async () => {
    const { server } = clockwork();
    await vi.advanceTimersByTimeAsync(100);
    server.silent = true;
    await vi.advanceTimersByTimeAsync(60_000);
    expect(server.streams).toHaveLength(1);
  });

  it("retries an agent of another claw about each minute", async () => {
    vi.useFakeTimers();
    const beats: string[] = [];
    const transport = serverOf({
      async *heartbeat(incoming) {
        yield create(HeartbeatResponseSchema, { nextHeartbeatIn: { seconds: 10n }, leaseTtl: { seconds: 30n } });
        for await (const { sequence, beats: sent } of incoming) {
          beats.push(...sent.map(({ agentId }) => agentId));
          const error = { code: 5, reason: ErrorReason.AGENT_NOT_FOUND, message: "There is none." };
          const results = sent.map(({ agentId }) => ({ agentId, sequence, error }));
          yield create(HeartbeatResponseSchema, { acknowledgedSequence: sequence, results });
        }
      },
    });
    const { client } = start({ transport });
    const refused = vi.fn();
    client.agent("a").on("refused", refused);
    await vi.advanceTimersByTimeAsync(40_000);
    expect(beats).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(120_000);
    expect(beats.length).toBeGreaterThanOrEqual(2);
    expect(beats.length).toBeLessThanOrEqual(4);
    expect(refused).toHaveBeenCalledTimes(1);
  });
});

it("rejects the names that the service rejects", () => {
  const refuses = (check: () => unknown): boolean => {
    try {
      check();
      return false;
    } catch {
      return true;
    }
  };
  const names = [
    "",
    "a",
    "a".repeat(128),
    "a".repeat(129),
    "😀".repeat(128),
    "😀".repeat(129),
    "a\u0000",
    "a\u007f",
    "\ud800",
    "ж",
  ];
  for (const name of names) {
    const server = refuses(() => readFields((violations) => readName(violations, "agent_id", name)));
    expect([name, refuses(() => checkName("agentId", name))]).toEqual([name, server]);
  }
  expect(() => createHeartbeatClient({ address: "nowhere at all", claw: "c" })).toThrow(RangeError);
  expect(() => createHeartbeatClient({ claw: "c" })).toThrow(RangeError);
});

/** @param questions the responses to pings; by default it answers them */
function serverOf(
  service: Partial<ServiceImpl<typeof AgentService>>,
  questions: ServiceImpl<typeof Health>["check"] = () => ({}),
) {
  return createRouterTransport(({ service: add }) => {
    add(AgentService, service);
    add(Health, { check: questions });
  });
}
