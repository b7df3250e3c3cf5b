import { type Client, Code, createClient } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { AgentStatus } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import { AgentService } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { DIALECTS, type Dialect, failure } from "../support/rpc-clients.ts";
import { eventually, type RunningListeners, startListeners } from "../support/rpc-listeners.ts";

let listeners: RunningListeners;

beforeAll(async () => {
  listeners = await startListeners({ defaultDeadlineMs: 400 });
});

afterAll(async () => {
  await listeners[Symbol.asyncDispose]();
});

function connect({ listener, transport }: Dialect): Client<typeof AgentService> {
  return createClient(AgentService, transport(listener === "grpc" ? listeners.grpcAddress : listeners.connectAddress));
}

describe.each(DIALECTS)("$name", (dialect) => {
  const client = () => connect(dialect);
  const get = (agentId: string, timeoutMs?: number) =>
    client().getAgent({ key: { case: "agentId", value: agentId } }, timeoutMs === undefined ? {} : { timeoutMs });

  test("returns the message, headers and trailers", async () => {
    const seen: string[] = [];
    const { agent } = await client().getAgent(
      { key: { case: "agentId", value: "scribe" } },
      {
        onHeader: (headers) => seen.push(headers.get("x-fake-header") ?? ""),
        onTrailer: (trailers) => seen.push(trailers.get("x-fake-trailer") ?? ""),
      },
    );
    expect(agent).toMatchObject({ id: 7n, agentId: "scribe", status: AgentStatus.IDLE });
    expect(seen).toEqual(["header", "trailer"]);
  });

  test("rejects with code, reason and metadata", async () => {
    expect(await failure(get("missing"))).toEqual({
      code: Code.NotFound,
      message: "there is no agent missing",
      reason: "AGENT_NOT_FOUND",
      domain: "harborforge.agents",
      metadata: { agentId: "missing" },
      fields: [],
      retryMs: undefined,
    });
  });

  test("names the invalid field, as the caller spells it", async () => {
    const field = dialect.name.includes("JSON") ? "agentId" : "agent_id";
    const { code, reason, fields, metadata } = await failure(get("invalid"));
    expect({ code, reason, fields, metadata }).toEqual({
      code: Code.InvalidArgument,
      reason: "INVALID_FIELD",
      fields: [field],
      metadata: { field },
    });
  });

  test("returns a retry delay", async () => {
    const { code, reason, retryMs } = await failure(get("busy"));
    expect({ code, reason, retryMs }).toEqual({
      code: Code.Unavailable,
      reason: "DATABASE_UNAVAILABLE",
      retryMs: 1_500,
    });
  });

  test("hides internal errors", async () => {
    expect(await failure(get("broken"))).toMatchObject({
      code: Code.Internal,
      message: "internal error",
      reason: "INTERNAL",
    });
    expect(listeners.logged.join("\n")).toContain("the secret of the house");
  });

  test.each([
    "never",
    "late-throw",
  ])("returns DEADLINE_EXCEEDED by itself when a handler does not (%s)", async (agentId) => {
    expect(await failure(get(agentId))).toMatchObject({ code: Code.DeadlineExceeded, reason: "DEADLINE_EXCEEDED" });
  });

  test("rejects an enum number outside the contract", async () => {
    // A number above all known ones, as a newer client would send it.
    const filter = { statuses: [AgentStatus.IDLE, 99 as AgentStatus] };
    const failed = await failure(client().listAgents({ filter }));
    expect(failed).toMatchObject({
      code: Code.InvalidArgument,
      reason: "INVALID_FIELD",
      fields: ["filter.statuses[1]"],
    });
  });

  test("leaves the enum numbers of beats to the handler", async () => {
    const { results } = await client().sendHeartbeat({ beats: [{ agentId: "a", status: 99 as AgentStatus }] });
    expect(results).toHaveLength(1);
  });

  test("rejects a message above 1 MiB", async () => {
    const failed = await failure(client().listAgents({ pageToken: "x".repeat(1_048_600) }));
    expect(failed).toMatchObject({
      code: Code.ResourceExhausted,
      reason: "LIMIT_EXCEEDED",
      metadata: { limit: "maxMessageBytes", maxMessageBytes: "1048576" },
    });
  });

  test("reports a method without a handler as unimplemented", async () => {
    expect(await failure(client().getFleet({}))).toMatchObject({ code: Code.Unimplemented, reason: "UNIMPLEMENTED" });
  });

  test("streams to the client at once, and stops the handler when the client cancels", async () => {
    const before = listeners.seen.openHandlers;
    const controller = new AbortController();
    for await (const message of cancellable(client().watchAgents({}, { signal: controller.signal }))) {
      expect(message.bookmark?.snapshotComplete).toBe(true);
      expect(listeners.seen.openHandlers).toBe(before + 1);
      controller.abort();
    }
    await eventually("the handler ended", () => listeners.seen.openHandlers === before);
    expect(listeners.seen.signals.at(-1)?.aborted).toBe(true);
  });

  test("ends a stream with the error of its handler", async () => {
    const failed = await failure(drain(client().watchAgents({ filter: { agentIds: ["slow-watcher"] } })));
    expect(failed).toMatchObject({
      code: Code.ResourceExhausted,
      reason: "WATCHER_TOO_SLOW",
      metadata: { revision: "1" },
    });
  });

  test("ends a stream at its deadline, also when its handler does not", async () => {
    const stream = client().watchAgents({ filter: { agentIds: ["isolated"] } }, { timeoutMs: 150 });
    expect(await failure(drain(stream))).toMatchObject({ code: Code.DeadlineExceeded });
  });
});

describe.each(DIALECTS.filter(({ bidi }) => bidi))("$name, bidirectional", (dialect) => {
  const client = () => connect(dialect);

  test("streams in both directions until the client half-closes", async () => {
    const ends = listeners.seen.inputEnds.length;
    const acknowledged: bigint[] = [];
    for await (const response of client().heartbeat(beats(1n, 2n, 3n)))
      acknowledged.push(response.acknowledgedSequence);
    expect(acknowledged).toEqual([0n, 1n, 2n, 3n]);
    expect(listeners.seen.inputEnds.slice(ends)).toEqual(["end"]);
  });

  test("rejects during a stream", async () => {
    const failed = await failure(drain(client().heartbeat(beats(1n, 666n, 3n))));
    expect(failed).toMatchObject({ code: Code.InvalidArgument, reason: "INVALID_FIELD" });
  });

  test("stops the handler of a bidirectional stream when the client cancels", async () => {
    const ends = listeners.seen.inputEnds.length;
    const controller = new AbortController();
    for await (const _ of cancellable(client().heartbeat(unending(), { signal: controller.signal })))
      controller.abort();
    await eventually("the input ended", () => listeners.seen.inputEnds.length > ends);
    await eventually("the signal was aborted", () => listeners.seen.signals.at(-1)?.aborted === true);
  });
});

describe.each(DIALECTS.filter(({ bidi }) => !bidi))("$name, bidirectional", (dialect) => {
  const client = () => connect(dialect);

  test("rejects a bidirectional stream over HTTP/1.1", async () => {
    // The client itself rejects calls that it knows to be impossible; the raw requests are in another test.
    await expect(drain(client().heartbeat(beats(1n)))).rejects.toThrow();
  });
});

async function* beats(...sequences: bigint[]) {
  for (const sequence of sequences) yield { sequence, beats: [{ agentId: "a" }] };
}

async function* unending() {
  yield { sequence: 1n };
  await new Promise<never>(() => undefined);
}

async function drain(stream: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of stream);
}

/** A stream whose cancellation is expected. */
async function* cancellable<T>(stream: AsyncIterable<T>): AsyncGenerator<T> {
  try {
    yield* stream;
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === Code.Canceled)) throw error;
  }
}
