import { create } from "@bufbuild/protobuf";
import {
  Code,
  ConnectError,
  createHandlerContext,
  type HandlerContext,
  type MethodImplSpec,
  type ServiceImpl,
} from "@connectrpc/connect";
import { ChildContext, isCallEnded } from "@harborforge/connect-grpc-js";
import { pino } from "pino";
import { describe, expect, test } from "vitest";
import {
  AgentService,
  GetAgentRequestSchema,
  WatchAgentsRequestSchema,
} from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { Refusal } from "../../src/domain/errors.ts";
import { ANYONE, type Authenticate, type Caller, type Principal, unauthenticated } from "../../src/domain/principal.ts";
import { principalKey } from "../../src/rpc/callers/call-values.ts";
import { createPipeline, type PipelineOptions } from "../../src/rpc/pipeline/pipeline.ts";
import { createHealth } from "../../src/rpc/services/health.ts";
import { Metrics } from "../../src/telemetry/metrics/metrics.ts";

function setUp(impl: Partial<ServiceImpl<typeof AgentService>>, options: Partial<PipelineOptions> = {}) {
  const logged: Record<string, unknown>[] = [];
  const log = pino({ level: "debug" }, { write: (line: string) => logged.push(JSON.parse(line)) });
  const metrics = new Metrics();
  const pipeline = createPipeline({ log, metrics, ...options });
  const { getAgent, watchAgents } = pipeline.wrap(AgentService, impl).methods;
  const get = (timeoutMs?: number, requestSignal?: AbortSignal) => {
    const spec = kind(getAgent, "unary");
    const request = create(GetAgentRequestSchema, { key: { case: "agentId", value: "scribe" } });
    return spec.impl(request, context(spec, timeoutMs, requestSignal));
  };
  /** With a context as the gRPC listener makes it, which ends when the response was sent. */
  const getLazily = async () => {
    const spec = kind(getAgent, "unary");
    const request = create(GetAgentRequestSchema, { key: { case: "agentId", value: "scribe" } });
    const outer = new ChildContext(context(spec), () => Number.POSITIVE_INFINITY);
    try {
      return await spec.impl(request, outer);
    } finally {
      outer.ending.abort(undefined);
    }
  };
  const watch = (timeoutMs?: number) => {
    const spec = kind(watchAgents, "server_streaming");
    return spec.impl(create(WatchAgentsRequestSchema), context(spec, timeoutMs))[Symbol.asyncIterator]();
  };
  return { pipeline, metrics, logged, get, getLazily, watch };
}

function kind<K extends MethodImplSpec["kind"]>(spec: MethodImplSpec | undefined, wanted: K) {
  if (spec?.kind !== wanted) throw new Error(`no ${wanted} method`);
  return spec as Extract<MethodImplSpec, { kind: K }>;
}

function context(spec: MethodImplSpec, timeoutMs?: number, requestSignal?: AbortSignal) {
  return createHandlerContext({
    service: spec.method.parent,
    method: spec.method,
    protocolName: "test",
    requestMethod: "POST",
    url: "http://here",
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
    ...(requestSignal === undefined ? {} : { requestSignal }),
  });
}

const never = () => new Promise<never>(() => undefined);

describe("the pipeline", () => {
  test("sets a deadline for a unary call without one, and clamps one that is too long", async () => {
    const bounded = setUp({ getAgent: never }, { defaultDeadlineMs: 30 });
    await expect(bounded.get()).rejects.toMatchObject({ code: Code.DeadlineExceeded });
    const clamped = setUp({ getAgent: never }, { maxDeadlineMs: 30 });
    await expect(clamped.get(1_000_000)).rejects.toMatchObject({ code: Code.DeadlineExceeded });
  });

  test("passes the deadline and the cancellation to the handler", async () => {
    const seen: { left: number | undefined; signal: AbortSignal; principal: Principal }[] = [];
    const { get } = setUp(
      {
        getAgent: (_request, { timeoutMs, signal, values }) => {
          seen.push({ left: timeoutMs(), signal, principal: values.get(principalKey) });
          return never();
        },
      },
      { defaultDeadlineMs: 400 },
    );
    await expect(get()).rejects.toMatchObject({ code: Code.DeadlineExceeded });
    expect(seen[0]?.left).toBeGreaterThan(20);
    expect(seen[0]?.signal.aborted).toBe(true);
    expect(seen[0]?.principal).toBe(ANYONE);
  });

  test("tells a unary handler's background work that the call has ended, after a response and after an error", async () => {
    const contexts: HandlerContext[] = [];
    const { get, getLazily } = setUp({
      getAgent: (_request, own) => {
        contexts.push(own);
        // Without the signal, as waiting changes ask for it.
        expect(isCallEnded(own)).toBe(false);
        if (contexts.length % 2 === 0) throw new Refusal("AGENT_NOT_FOUND", "none");
        return {};
      },
    });
    for (const call of [get, getLazily]) {
      await call();
      await expect(call()).rejects.toMatchObject({ code: Code.NotFound });
    }
    expect(contexts.map(isCallEnded)).toEqual([true, true, true, true]);
    expect(contexts.map(({ signal }) => signal.reason)).toMatchObject([
      { code: Code.Canceled },
      { code: Code.NotFound },
      { code: Code.Canceled },
      { code: Code.NotFound },
    ]);
  });

  test("maps errors after the deadline to DEADLINE_EXCEEDED", async () => {
    const { get } = setUp(
      {
        getAgent: async (_request, { signal }) => {
          await new Promise((resolve) => signal.addEventListener("abort", resolve));
          throw new Refusal("AGENT_NOT_FOUND", "too late");
        },
      },
      { defaultDeadlineMs: 20 },
    );
    await expect(get()).rejects.toMatchObject({ code: Code.DeadlineExceeded });
  });

  test("ends a call whose client has gone", async () => {
    const { get, pipeline } = setUp({ getAgent: never });
    const caller = new AbortController();
    const call = get(undefined, caller.signal);
    expect(pipeline.callsInProgress).toBe(1);
    caller.abort();
    await expect(call).rejects.toMatchObject({ code: Code.Canceled });
    expect(pipeline.callsInProgress).toBe(0);
    await expect(get(undefined, caller.signal)).rejects.toMatchObject({ code: Code.Canceled });
  });

  test("requests admission before the handler", async () => {
    let called = false;
    const { get, watch } = setUp(
      {
        getAgent: () => {
          called = true;
          return {};
        },
      },
      { admission: () => new Refusal("DRAINING", "stopping", { retryAfterMs: 5 }) },
    );
    await expect(get()).rejects.toMatchObject({ code: Code.Unavailable });
    await expect(watch().next()).rejects.toMatchObject({ code: Code.Unavailable });
    expect(called).toBe(false);
  });

  test("tracks open streams, and ends them", async () => {
    const signals: AbortSignal[] = [];
    const { watch, pipeline, metrics } = setUp({
      async *watchAgents(_request, { signal }) {
        signals.push(signal);
        yield {};
        await never();
      },
    });
    const streams = [watch(), watch()];
    await Promise.all(streams.map((stream) => stream.next()));
    expect(pipeline.openStreams.size).toBe(2);
    expect(await metrics.metrics()).toContain(
      'harborforge_rpc_open_streams{method="harborforge.agents.v1.AgentService/WatchAgents"} 2',
    );
    const waiting = streams.map((stream) => stream.next());
    pipeline.endStreams(new Refusal("DRAINING", "stopping"));
    for (const end of waiting) await expect(end).rejects.toMatchObject({ code: Code.Unavailable });
    expect(pipeline.openStreams.size).toBe(0);
    expect(signals.every((signal) => signal.aborted)).toBe(true);
  });

  test("ends a stream at its caller's deadline", async () => {
    const { watch, pipeline } = setUp({
      async *watchAgents() {
        yield {};
        await never();
      },
    });
    const stream = watch(30);
    await stream.next();
    await expect(stream.next()).rejects.toMatchObject({ code: Code.DeadlineExceeded });
    expect(pipeline.openStreams.size).toBe(0);
  });

  test("logs failed and slow calls without their content, and counts all calls", async () => {
    let answer: () => unknown = () => ({});
    const { get, logged, metrics } = setUp({ getAgent: async () => answer() as object }, { slowMs: 60_000 });
    await get();
    expect(logged).toEqual([]);
    answer = () => {
      throw new Refusal("AGENT_NOT_FOUND", "no agent scribe-7", { metadata: { agentId: "scribe-7" } });
    };
    await expect(get()).rejects.toThrow();
    expect(logged.at(-1)).toMatchObject({
      level: 20,
      event: "call.failed",
      code: "NOT_FOUND",
      reason: "AGENT_NOT_FOUND",
    });
    answer = () => {
      throw new Error("a fault");
    };
    await expect(get()).rejects.toThrow();
    expect(logged.at(-1)).toMatchObject({
      level: 50,
      event: "call.internal_error",
      code: "INTERNAL",
      err: { message: "a fault" },
    });
    const slow = setUp({ getAgent: () => ({}) }, { slowMs: 0 });
    await slow.get();
    expect(slow.logged.at(-1)).toMatchObject({ level: 30, event: "call.slow" });
    expect(JSON.stringify(logged)).not.toContain("scribe-7");
    const text = await metrics.metrics();
    expect(text).toContain('method="harborforge.agents.v1.AgentService/GetAgent",code="OK"} 1');
    expect(text).toContain('code="NOT_FOUND"} 1');
    expect(text).toContain("harborforge_rpc_unary_seconds_count");
  });
});

describe("health", () => {
  test("reports serving without a reason against it, and publishes only changes", () => {
    const health = createHealth();
    const changes: boolean[] = [];
    const stop = health.onChange(() => changes.push(health.serving));
    health.suspend("draining");
    health.suspend("the database is away");
    expect(health.why).toBe("draining, the database is away");
    health.resume("the database is away");
    health.resume("what never was");
    expect(health.serving).toBe(false);
    health.resume("draining");
    expect([health.serving, health.why]).toEqual([true, undefined]);
    stop();
    health.suspend("draining");
    expect(changes).toEqual([false, true]);
  });
});

describe("a caller", () => {
  const principal = (name: string): Principal => ({ role: "viewer", name, credential: "test", expiresAt: undefined });
  const rule = () => ({ callers: new Set(["viewer"] as const) });
  const accessBy = (authenticate: Authenticate) => ({ access: { authenticate, rule, audit: () => undefined } });
  const LIMITS = { requestsPerSecond: 1, streamsPerCaller: 1 };

  async function codes(call: () => Promise<unknown>, times: number): Promise<(string | undefined)[]> {
    const found: (string | undefined)[] = [];
    for (let n = 0; n < times; n += 1) {
      found.push(
        await call().then(
          () => undefined,
          (error: unknown) => Code[ConnectError.from(error).code],
        ),
      );
    }
    return found;
  }

  test("is limited by its principal, also on a shared address; without a principal by its address", async () => {
    let who: string | undefined = "ada";
    const authenticate: Authenticate = () => {
      if (who === undefined) throw unauthenticated("who are you?");
      return { principal: principal(who) };
    };
    const { get } = setUp({ getAgent: () => ({}) }, { ...accessBy(authenticate), callLimits: LIMITS });
    // Twice the rate of a second at once.
    expect(await codes(async () => await get(), 3)).toEqual([undefined, undefined, "ResourceExhausted"]);
    who = "bob";
    expect(await codes(async () => await get(), 3)).toEqual([undefined, undefined, "ResourceExhausted"]);
    who = undefined;
    expect(await codes(async () => await get(), 3)).toEqual([
      "Unauthenticated",
      "Unauthenticated",
      "ResourceExhausted",
    ]);
  });

  test("has one limit of streams over all of its connections", async () => {
    const authenticate: Authenticate = async () => ({ principal: principal("ada") });
    const { watch } = setUp(
      { watchAgents: forever },
      { ...accessBy(authenticate), callLimits: { ...LIMITS, requestsPerSecond: 100 } },
    );
    const first = watch();
    await first.next();
    await expect(watch().next()).rejects.toMatchObject({ code: Code.ResourceExhausted });
    await first.return?.();
    await watch().next();
  });

  test("that cancels before its authentication starts no handler", async () => {
    let known: ((caller: Caller) => void) | undefined;
    const authenticate: Authenticate = () =>
      new Promise((resolve) => {
        known = resolve;
      });
    let started = 0;
    const { watch, pipeline } = setUp(
      {
        watchAgents: async function* watchAgents() {
          started += 1;
          yield {};
        },
      },
      accessBy(authenticate),
    );
    const stream = watch();
    const pending = stream.next();
    pipeline.endStreams(new Refusal("DRAINING", "go elsewhere"));
    await expect(pending).rejects.toMatchObject({ code: Code.Unavailable });
    known?.({ principal: principal("ada") });
    await new Promise((resolve) => setImmediate(resolve));
    expect(started).toBe(0);
    expect(pipeline.openStreams.size).toBe(0);
  });

  test("with an expired credential opens no stream, and a later expiry ends its stream", async () => {
    const ends: ((refusal: Refusal) => void)[] = [];
    let forgotten = 0;
    let ended = true;
    const authenticate: Authenticate = () => ({
      principal: principal("ada"),
      whileValid: (end) => {
        if (ended) end(unauthenticated("over"));
        else ends.push(end);
        return () => {
          forgotten += 1;
        };
      },
    });
    const { watch, pipeline } = setUp({ watchAgents: forever }, accessBy(authenticate));
    await expect(watch().next()).rejects.toMatchObject({ code: Code.Unauthenticated });
    ended = false;
    const stream = watch();
    await stream.next();
    const next = stream.next();
    ends[0]?.(unauthenticated("over"));
    await expect(next).rejects.toMatchObject({ code: Code.Unauthenticated });
    expect(forgotten).toBe(1);
    expect(pipeline.openStreams.size).toBe(0);
  });

  test("is denied a method without an access rule, whatever its role", async () => {
    const access = {
      authenticate: () => ({ principal: principal("ada") }),
      rule: () => undefined,
      audit: () => undefined,
    };
    const { get } = setUp({ getAgent: () => ({}) }, { access });
    await expect(get()).rejects.toMatchObject({ code: Code.PermissionDenied });
  });
});

async function* forever(_request: unknown, { signal }: HandlerContext): AsyncGenerator<object> {
  yield {};
  await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
}
