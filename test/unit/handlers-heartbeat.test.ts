import { create, fromBinary, type MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError, createHandlerContext } from "@connectrpc/connect";
import { describe, expect, it, vi } from "vitest";
import { AgentStatus, ExhaustionSchema, ExhaustReason } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import {
  AgentBeatSchema,
  AgentService,
  HeartbeatRequestSchema,
  type HeartbeatResponse,
} from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { ErrorReason } from "../../gen/harborforge/agents/v1/error_reason_pb.ts";
import { Refusal } from "../../src/domain/errors.ts";
import { createAgentService } from "../../src/rpc/handlers/agent-service.ts";
import { createFakeBackend, FAKE_NOW } from "../support/fake-backend.ts";
import { collect, createInMemoryClients, refusalOf } from "../support/in-memory-clients.ts";
import { PushedInput } from "../support/pushed-input.ts";
import { PATIENCE } from "../support/until.ts";

type Request = MessageInitShape<typeof HeartbeatRequestSchema>;
type Beat = MessageInitShape<typeof AgentBeatSchema>;

const UNKNOWN_STATUS = fromBinary(AgentBeatSchema, Uint8Array.of(0x10, 99)).status;
const UNKNOWN_REASON = fromBinary(ExhaustionSchema, Uint8Array.of(0x08, 99)).reason;

/** Beats that are rejected individually, each with the invalid field. */
const BAD_BEATS: readonly { readonly beat: Beat; readonly field: string }[] = [
  { beat: {}, field: "agent_id" },
  { beat: { agentId: "x".repeat(129) }, field: "agent_id" },
  { beat: { agentId: "a\u0000" }, field: "agent_id" },
  { beat: { agentId: "a", status: UNKNOWN_STATUS }, field: "status" },
  { beat: { agentId: "a", status: AgentStatus.OFFLINE }, field: "status" },
  { beat: { agentId: "a", status: AgentStatus.EXHAUSTED }, field: "exhaustion" },
  { beat: { agentId: "a", status: AgentStatus.BUSY, exhaustion: { reason: 1 } }, field: "exhaustion" },
  { beat: { agentId: "a", exhaustion: { reason: 1 } }, field: "exhaustion" },
  { beat: { agentId: "a", status: AgentStatus.EXHAUSTED, exhaustion: {} }, field: "exhaustion.reason" },
  {
    beat: { agentId: "a", status: AgentStatus.EXHAUSTED, exhaustion: { reason: UNKNOWN_REASON } },
    field: "exhaustion.reason",
  },
  {
    beat: {
      agentId: "a",
      status: AgentStatus.EXHAUSTED,
      exhaustion: { reason: 1, recovery: { case: "retryAfter", value: { seconds: -1n } } },
    },
    field: "exhaustion.retry_after",
  },
  { beat: { agentId: "a", leaving: true, status: AgentStatus.IDLE }, field: "status" },
  { beat: { agentId: "a", leaving: true, exhaustion: { reason: 1 } }, field: "exhaustion" },
  { beat: { agentId: "a", knownRevision: -1n }, field: "known_revision" },
];

describe("SendHeartbeat", () => {
  function start() {
    const backend = createFakeBackend();
    return { backend, ...createInMemoryClients(backend) };
  }

  it("returns a result for each beat in order, invalid ones individually", async () => {
    const { agents, backend } = start();
    backend.put("a", { status: "busy" });
    const good: Beat = { agentId: "a" };
    const beats = BAD_BEATS.flatMap(({ beat }) => [beat, good]);
    const { results } = await agents.sendHeartbeat({ beats });
    expect(results).toHaveLength(beats.length);
    BAD_BEATS.forEach(({ beat, field }, index) => {
      const [bad, fine] = results.slice(2 * index);
      expect(bad).toMatchObject({
        agentId: beat.agentId ?? "",
        status: AgentStatus.UNSPECIFIED,
        sequence: 0n,
        beatIndex: 2 * index,
        revision: 0n,
        error: { code: Code.InvalidArgument, reason: ErrorReason.INVALID_FIELD },
      });
      expect(bad?.error?.message).toContain(`beats[${2 * index}].${field}: must`);
      expect(bad?.error?.retryAfter).toBeUndefined();
      expect(fine).toMatchObject({ agentId: "a", status: AgentStatus.BUSY, beatIndex: 2 * index + 1, revision: 1n });
      expect(fine?.error).toBeUndefined();
    });
  });

  it("parses every kind of beat", async () => {
    const { agents, backend } = start();
    const recoveryAt = { seconds: 1_790_000_000n, nanos: 123_457_000 };
    await agents.sendHeartbeat({
      beats: [
        { agentId: "a" },
        { agentId: "a", status: AgentStatus.ON_CALL, knownRevision: 0n },
        { agentId: "a", leaving: true, knownRevision: 7n },
        {
          agentId: "a",
          status: AgentStatus.EXHAUSTED,
          exhaustion: { reason: ExhaustReason.RATE_LIMIT, recovery: { case: "recoveryAt", value: recoveryAt } },
        },
      ],
    });
    const beat = (report: unknown, knownRevision?: bigint, leaving = false) => ({
      agentId: "a",
      leaving,
      beat: { report, knownRevision },
    });
    expect(backend.calls.beats).toEqual([
      beat(undefined),
      beat("on_call", 0n),
      beat(undefined, 7n, true),
      beat({ exhausted: { reason: "rate_limit", recoveryAt: FAKE_NOW } }),
    ]);
  });

  it.each([
    { asked: undefined, granted: 30_000 },
    { asked: { seconds: 0n }, granted: 30_000 },
    { asked: { seconds: 29n, nanos: 999_000_000 }, granted: 30_000 },
    { asked: { seconds: 90n, nanos: 500_000_000 }, granted: 90_500 },
    { asked: { seconds: 3_600n }, granted: 3_600_000 },
    { asked: { seconds: 86_400n }, granted: 3_600_000 },
  ])("grants and returns $granted ms for $asked", async ({ asked: leaseTtl, granted }) => {
    const { agents, backend } = start();
    const answer = await agents.sendHeartbeat({ beats: [], ...(leaseTtl === undefined ? {} : { leaseTtl }) });
    expect(backend.calls.leasesMs).toEqual([granted]);
    const { seconds, nanos } = answer.leaseTtl ?? { seconds: 0n, nanos: 0 };
    expect(Number(seconds) * 1_000 + nanos / 1e6).toBe(granted);
    expect(answer.nextHeartbeatIn).toMatchObject({ seconds: 9n, nanos: 500_000_000 });
  });

  it("rejects an invalid envelope", async () => {
    const { agents, backend } = start();
    const beats = Array.from({ length: 1_000 }, () => ({ agentId: "a" }));
    expect((await agents.sendHeartbeat({ beats })).results).toHaveLength(1_000);
    backend.calls.beats.length = 0;
    for (const { request, fields } of [
      { request: { beats: [...beats, { agentId: "a" }] }, fields: ["beats"] },
      { request: { leaseTtl: { seconds: -1n } }, fields: ["lease_ttl"] },
      { request: { leaseTtl: { seconds: 1n, nanos: -1 } }, fields: ["lease_ttl"] },
      { request: { clawIdentifier: "x".repeat(129) }, fields: ["claw_identifier"] },
    ]) {
      expect(await refusalOf(agents.sendHeartbeat(request))).toMatchObject({
        code: "InvalidArgument",
        reason: "INVALID_FIELD",
        fields,
      });
    }
    expect(backend.calls.beats).toEqual([]);
  });
});

describe("Heartbeat", () => {
  /** A stream through the pipeline, as a client sees it. */
  function open() {
    const backend = createFakeBackend();
    backend.put("a");
    const { agents, pipeline } = createInMemoryClients(backend);
    const input = new PushedInput<Request>();
    const controller = new AbortController();
    const stream = agents.heartbeat(input, { signal: controller.signal })[Symbol.asyncIterator]();
    const next = async (): Promise<HeartbeatResponse> => {
      const { value, done } = await stream.next();
      if (done === true) throw new Error("the stream has ended");
      return value;
    };
    const rest = () => collect({ [Symbol.asyncIterator]: () => stream });
    return { backend, pipeline, input, controller, next, rest };
  }

  it("sends a first response before any request", async () => {
    const { next, input, rest, backend } = open();
    expect(await next()).toMatchObject({
      acknowledgedSequence: 0n,
      results: [],
      nextHeartbeatIn: { seconds: 9n, nanos: 500_000_000 },
      leaseTtl: { seconds: 30n },
      limits: { maxBeats: 1_000, maxMessageBytes: 1_048_576, maxAgents: 10_000 },
    });
    input.end();
    expect(await rest()).toEqual([]);
    expect(backend.sessions).toEqual([]);
  });

  it("opens its session with the first message; later values for the claw are ignored", async () => {
    const { next, input, rest, backend } = open();
    await next();
    input.send({ sequence: 1n, clawIdentifier: "claw-1", instanceId: "i-1", generation: 2n ** 63n });
    input.send({ sequence: 2n, clawIdentifier: "claw-2", instanceId: "i-2", generation: 1n });
    input.end();
    expect((await rest()).map(({ acknowledgedSequence }) => acknowledgedSequence)).toEqual([1n, 2n]);
    expect(backend.sessions.map(({ options }) => options)).toEqual([
      { clawIdentifier: "claw-1", instanceId: "i-1", generation: 2n ** 63n, takesWakes: false },
    ]);
  });

  it("accepts a first message without a claw", async () => {
    const { next, input, rest, backend } = open();
    await next();
    input.send({ sequence: 5n });
    input.end();
    expect(await rest()).toMatchObject([{ acknowledgedSequence: 5n, results: [] }]);
    expect(backend.sessions[0]?.options).toEqual({
      clawIdentifier: undefined,
      instanceId: undefined,
      generation: 0n,
      takesWakes: false,
    });
  });

  it("acknowledges cumulatively and asynchronously, with pace and lease in each response", async () => {
    const { next, input, backend, rest } = open();
    backend.acknowledging = false;
    await next();
    input.send({ sequence: 1n }, { sequence: 2n }, { sequence: 7n });
    await vi.waitFor(() => expect(backend.sessions[0]?.submitted).toHaveLength(3), PATIENCE);
    const [session] = backend.sessions;
    session?.say({ acknowledgedSequence: 2n });
    session?.say({ acknowledgedSequence: 7n, messages: [{ kind: "draining", reconnectWithinMs: 2_500 }] });
    const pace = { nextHeartbeatIn: { seconds: 9n }, leaseTtl: { seconds: 30n } };
    const first = await next();
    expect(first).toMatchObject({ acknowledgedSequence: 2n, ...pace });
    expect(first.limits).toBeUndefined();
    expect(first.draining).toBeUndefined();
    expect(await next()).toMatchObject({
      acknowledgedSequence: 7n,
      draining: { reconnectWithin: { seconds: 2n, nanos: 500_000_000 } },
      ...pace,
    });
    input.end();
    expect(await rest()).toEqual([]);
  });

  it("rejects invalid beats individually, with their message and index", async () => {
    const { next, input, rest } = open();
    await next();
    input.send({
      sequence: 3n,
      beats: [{ agentId: "a" }, { agentId: "a", status: AgentStatus.OFFLINE }, { agentId: "z" }],
    });
    input.end();
    const [answer] = await rest();
    expect(answer).toMatchObject({
      acknowledgedSequence: 3n,
      results: [
        { agentId: "a", sequence: 3n, beatIndex: 1, error: { code: 3, reason: ErrorReason.INVALID_FIELD } },
        { agentId: "z", sequence: 3n, beatIndex: 2, error: { code: 5, reason: ErrorReason.AGENT_NOT_FOUND } },
      ],
    });
    expect(answer?.results[0]?.error?.message).toContain("beats[1].status");
  });

  it("carries pushed changes, and rejections with their delay", async () => {
    const { next, input, backend, rest } = open();
    backend.acknowledging = false;
    await next();
    input.send({ sequence: 1n });
    await vi.waitFor(() => expect(backend.sessions).toHaveLength(1), PATIENCE);
    const exhaustion = { reason: "rate_limit", exhaustedAt: FAKE_NOW, recoveryAt: FAKE_NOW } as const;
    const agent = { agentId: "a", status: "exhausted", exhaustion, revision: 9n } as const;
    const refusal = new Refusal("REPORT_OUTDATED", "A service set it meanwhile.", { retryAfterMs: 1_500 });
    backend.sessions[0]?.say({
      acknowledgedSequence: 1n,
      messages: [
        { kind: "change", ...agent },
        { kind: "result", ...agent, sequence: 1n, beatIndex: 0, refusal },
      ],
    });
    expect((await next()).results).toMatchObject([
      {
        agentId: "a",
        status: AgentStatus.EXHAUSTED,
        exhaustion: {
          reason: ExhaustReason.RATE_LIMIT,
          recovery: { case: "recoveryAt", value: { nanos: 123_457_000 } },
        },
        sequence: 0n,
        revision: 9n,
      },
      {
        sequence: 1n,
        error: {
          code: Code.Aborted,
          reason: ErrorReason.REPORT_OUTDATED,
          message: "A service set it meanwhile.",
          retryAfter: { seconds: 1n, nanos: 500_000_000 },
        },
      },
    ]);
    input.end();
    await rest();
  });

  it("splits results that would make one response too large, the acknowledgement last", async () => {
    const { next, input, rest } = open();
    await next();
    const beats = Array.from({ length: 1_000 }, () => ({ agentId: "x".repeat(1_000) }));
    input.send({ sequence: 4n, beats });
    input.end();
    const parts = await rest();
    expect(parts.length).toBeGreaterThan(1);
    expect(parts.map(({ acknowledgedSequence }) => acknowledgedSequence)).toEqual([
      ...parts.slice(1).map(() => 0n),
      4n,
    ]);
    expect(parts.flatMap(({ results }) => results.map(({ beatIndex }) => beatIndex))).toEqual(beats.map((_, i) => i));
    expect(parts.every(({ leaseTtl }) => leaseTtl?.seconds === 30n)).toBe(true);
  });

  it("sends all pending responses after the client's half-close, then ends with OK", async () => {
    const { next, input, backend, rest } = open();
    backend.acknowledging = false;
    await next();
    input.send({ sequence: 1n });
    input.end();
    await vi.waitFor(() => expect(backend.sessions[0]?.finished).toBe(true), PATIENCE);
    const [session] = backend.sessions;
    session?.say({ acknowledgedSequence: 1n });
    expect(await rest()).toMatchObject([{ acknowledgedSequence: 1n }]);
    expect(session?.closed).toBe(true);
  });

  it.each<{ why: string; bad: Request; field: string }>([
    { why: "a sequence that stands still", bad: { sequence: 2n }, field: "sequence" },
    { why: "a sequence that goes back", bad: { sequence: 1n }, field: "sequence" },
    { why: "no sequence", bad: {}, field: "sequence" },
    {
      why: "too many beats",
      bad: { sequence: 3n, beats: Array.from({ length: 1_001 }, () => ({ agentId: "a" })) },
      field: "beats",
    },
  ])("ends for $why, after all pending acknowledgements", async ({ bad, field }) => {
    const { next, input, backend } = open();
    backend.acknowledging = false;
    await next();
    input.send({ sequence: 2n }, bad, { sequence: 9n });
    await vi.waitFor(() => expect(backend.sessions[0]?.finished).toBe(true), PATIENCE);
    const [session] = backend.sessions;
    session?.say({ acknowledgedSequence: 2n });
    expect(await next()).toMatchObject({ acknowledgedSequence: 2n });
    expect(await refusalOf(next())).toMatchObject({
      code: "InvalidArgument",
      reason: "INVALID_FIELD",
      fields: [field],
    });
    expect(session?.submitted).toHaveLength(1);
    expect(session?.closed).toBe(true);
  });

  it.each<{ bad: Request; field: string }>([
    { bad: { sequence: 0n }, field: "sequence" },
    { bad: { sequence: 1n, clawIdentifier: "x".repeat(129) }, field: "claw_identifier" },
    { bad: { sequence: 1n, instanceId: "a\u0007" }, field: "instance_id" },
  ])("ends for a first message with an invalid $field, without a session", async ({ bad, field }) => {
    const { next, input, backend, pipeline } = open();
    await next();
    input.send(bad);
    expect((await refusalOf(next())).fields).toEqual([field]);
    expect(backend.sessions).toEqual([]);
    expect(pipeline.openStreams.size).toBe(0);
  });

  it("closes the session when the client cancels, with a message under way or none", async () => {
    for (const messages of [[], [{ sequence: 1n }]]) {
      const { next, input, backend, controller, pipeline } = open();
      await next();
      input.send(...messages);
      if (messages.length > 0) await next();
      controller.abort();
      expect((await refusalOf(next())).code).toBe("Canceled");
      await vi.waitFor(() => expect(backend.sessions.every(({ closed }) => closed)).toBe(true), PATIENCE);
      await vi.waitFor(() => expect(pipeline.openStreams.size).toBe(0), PATIENCE);
    }
  });

  it("passes on the session's rejection, and closes it", async () => {
    const { next, input, backend } = open();
    await next();
    input.send({ sequence: 1n });
    await next();
    backend.sessions[0]?.fail(new Refusal("DRAINING", "The replica stops.", { retryAfterMs: 100 }));
    expect(await refusalOf(next())).toMatchObject({ code: "Unavailable", reason: "DRAINING" });
    expect(backend.sessions[0]?.closed).toBe(true);
  });
});

describe("the heartbeat handler alone", () => {
  const method = AgentService.method.heartbeat;

  /** Without the pipeline, which would end the stream in its own way. */
  function open() {
    const backend = createFakeBackend();
    const context = createHandlerContext({
      service: AgentService,
      method,
      protocolName: "grpc",
      requestMethod: "POST",
      url: "https://in-memory",
    });
    const input = new PushedInput<ReturnType<typeof request>>();
    const output = createAgentService(backend).heartbeat(input, context)[Symbol.asyncIterator]();
    return { backend, context, input, output };
  }

  function request(init: Request) {
    return create(HeartbeatRequestSchema, init);
  }

  it("throws the error that ended it at each read", async () => {
    const { input, output } = open();
    await output.next();
    input.send(request({ sequence: 0n }));
    for (let read = 0; read < 3; read += 1) {
      await expect(output.next()).rejects.toMatchObject({ reason: "INVALID_FIELD" });
    }
  });

  it("does not treat a cancellation that looks like the end of the input as a goodbye", async () => {
    const { backend, context, input, output } = open();
    backend.acknowledging = false;
    await output.next();
    input.send(request({ sequence: 1n }));
    const pending = output.next();
    await vi.waitFor(() => expect(backend.sessions[0]?.submitted).toHaveLength(1), PATIENCE);
    input.end();
    await vi.waitFor(() => expect(backend.sessions[0]?.finished).toBe(true), PATIENCE);
    context.abort(new ConnectError("gone", Code.Canceled));
    await expect(pending).rejects.toThrow("gone");
    expect(backend.sessions[0]?.closed).toBe(true);
  });

  it("closes the session when its output is closed early", async () => {
    const { backend, input, output } = open();
    await output.next();
    input.send(request({ sequence: 1n }));
    await output.next();
    expect(await output.return?.()).toMatchObject({ done: true });
    expect(backend.sessions[0]?.closed).toBe(true);
    // Later events of the input have no effect: no rejection goes unhandled.
    input.fail(new Error("reset"));
    await vi.waitFor(() => expect(input.failed).toBe(true), PATIENCE);
    expect(await output.next()).toMatchObject({ done: true });
  });

  it("closes the session at once when the connection breaks", async () => {
    const { backend, input, output } = open();
    backend.acknowledging = false;
    await output.next();
    input.send(request({ sequence: 1n }));
    const pending = output.next();
    await vi.waitFor(() => expect(backend.sessions[0]?.submitted).toHaveLength(1), PATIENCE);
    input.fail(new Error("premature close"));
    await expect(pending).rejects.toThrow("premature close");
    expect(backend.sessions[0]).toMatchObject({ closed: true, finished: false });
  });

  it("sends pending acknowledgements when the listener rejects the next message", async () => {
    const { backend, input, output } = open();
    backend.acknowledging = false;
    await output.next();
    input.send(request({ sequence: 1n }));
    const pending = output.next();
    await vi.waitFor(() => expect(backend.sessions[0]?.submitted).toHaveLength(1), PATIENCE);
    input.fail(new ConnectError("too large", Code.ResourceExhausted));
    await vi.waitFor(() => expect(backend.sessions[0]?.finished).toBe(true), PATIENCE);
    backend.sessions[0]?.say({ acknowledgedSequence: 1n });
    expect(await pending).toMatchObject({ done: false, value: { acknowledgedSequence: 1n } });
    await expect(output.next()).rejects.toThrow("too large");
  });

  it("ends when it was cancelled before the first message, or before it began", async () => {
    for (const early of [true, false]) {
      const { backend, context, input, output } = open();
      if (early) context.abort(new ConnectError("gone", Code.Canceled));
      expect(await output.next()).toMatchObject({ done: false });
      if (!early) context.abort(new ConnectError("gone", Code.Canceled));
      await expect(output.next()).rejects.toThrow("gone");
      input.send(request({ sequence: 1n }));
      expect(backend.sessions).toEqual([]);
    }
  });

  it("keeps its input open after an invalid envelope, because closing could destroy the stream", async () => {
    const { backend, input, output } = open();
    await output.next();
    const giveUp = vi.spyOn(input, "return");
    input.send(request({ sequence: 2n }), request({ sequence: 1n }));
    expect(await output.next()).toMatchObject({ value: { acknowledgedSequence: 2n } });
    await expect(output.next()).rejects.toThrow("sequence: must be greater than 2");
    expect(backend.sessions[0]?.closed).toBe(true);
    expect(giveUp).not.toHaveBeenCalled();
  });

  it("reads no faster than the session accepts", async () => {
    const { backend, input, output } = open();
    await output.next();
    let makeRoom: (() => void) | undefined;
    const openSession = backend.heartbeats.openSession;
    const slow = vi.spyOn(backend.heartbeats, "openSession").mockImplementation((options, listener) => {
      makeRoom = () => listener.onCapacity();
      const session = openSession(options, listener);
      const submit = session.submit.bind(session);
      session.submit = (sequence, beats) => submit(sequence, beats) && false;
      return session;
    });
    input.send(request({ sequence: 1n }), request({ sequence: 2n }));
    expect(await output.next()).toMatchObject({ value: { acknowledgedSequence: 1n } });
    expect(backend.sessions[0]?.submitted).toHaveLength(1);
    makeRoom?.();
    expect(await output.next()).toMatchObject({ value: { acknowledgedSequence: 2n } });
    makeRoom?.();
    input.end();
    expect(await output.next()).toMatchObject({ done: true });
    slow.mockRestore();
  });
});
