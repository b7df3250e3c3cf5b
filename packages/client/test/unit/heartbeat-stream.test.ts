import { Code, ConnectError } from "@connectrpc/connect";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { Refusal } from "../../../../src/domain/errors.ts";
import { createFakeBackend, FAKE_PACE } from "../../../../test/support/fake-backend.ts";
import { createInMemoryClients } from "../../../../test/support/in-memory-clients.ts";
import { PATIENCE } from "../../../../test/support/until.ts";
import { type HeartbeatConnection, HeartbeatStream } from "../../src/heartbeats/heartbeat-stream.ts";
import type { BeatView } from "../../src/views.ts";

function start(agentIds: string[] = ["a"]) {
  const backend = createFakeBackend();
  for (const agentId of agentIds) backend.put(agentId);
  const clients = createInMemoryClients(backend);
  const beats: BeatView[] = [];
  const connections: HeartbeatConnection[] = [];
  const reconnect = vi.fn();
  const stream = new HeartbeatStream({
    clients: { ...clients, reconnect },
    clawIdentifier: "claw-1",
    instanceId: "instance-1",
    onMessage: (message) => message.kind === "result" && beats.push(message),
    onConnection: (connection) => connections.push(connection),
  });
  onTestFinished(() => stream.close());
  for (const agentId of agentIds) stream.add(agentId);
  const session = async (index: number) => await vi.waitUntil(() => backend.sessions[index], PATIENCE);
  return { backend, stream, beats, connections, session, reconnect };
}

describe("HeartbeatStream", () => {
  it("sends its name, all agents in one message, and passes on the pace", async () => {
    const { session, connections } = start(["a", "b", "c"]);
    const { options, submitted } = await session(0);
    expect(options).toEqual({ clawIdentifier: "claw-1", instanceId: "instance-1", generation: 1n, takesWakes: false });
    await vi.waitUntil(() => submitted.length > 0, PATIENCE);
    expect(submitted[0]?.sequence).toBe(1n);
    expect(submitted[0]?.beats.map(({ agentId }) => agentId)).toEqual(["a", "b", "c"]);
    const { intervalMs, leaseMs } = FAKE_PACE;
    expect(connections).toEqual([{ state: "connected", intervalMs, leaseMs }]);
  });

  it("sends reports at once, concurrent ones in one message", async () => {
    const { session, stream } = start(["a", "b"]);
    const { submitted } = await session(0);
    await vi.waitUntil(() => submitted.length === 1, PATIENCE);
    stream.report("a", "busy");
    stream.report("b", "on_call");
    await vi.waitUntil(() => submitted.length === 2, PATIENCE);
    expect(submitted[1]).toMatchObject({
      sequence: 2n,
      beats: [
        { agentId: "a", beat: { report: "busy" } },
        { agentId: "b", beat: { report: "on_call" } },
      ],
    });
  });

  it("passes on the status that a service set", async () => {
    const { session, beats, backend } = start();
    const on = await session(0);
    const { status, exhaustion, revision } = backend.put("a", { status: "on_call" });
    on.say({ messages: [{ kind: "change", agentId: "a", status, exhaustion, revision }] });
    await vi.waitUntil(() => beats.length > 0, PATIENCE);
    expect(beats[0]).toMatchObject({ agentId: "a", sequence: 0n, status: "on_call", revision });
  });

  it("opens another stream when its own breaks, and repeats reports that are not acknowledged", async () => {
    const { session, stream, backend, connections } = start();
    const first = await session(0);
    backend.acknowledging = false;
    stream.report("a", "busy");
    await vi.waitUntil(() => first.submitted.length === 2, PATIENCE);
    backend.acknowledging = true;
    first.fail(new ConnectError("the connection is gone", Code.Unavailable));
    const second = await session(1);
    expect(second.options.generation).toBe(2n);
    await vi.waitUntil(() => second.submitted.length > 0, PATIENCE);
    expect(second.submitted[0]).toMatchObject({ sequence: 1n, beats: [{ agentId: "a", beat: { report: "busy" } }] });
    expect(connections.map(({ state }) => state)).toEqual(["connected", "waiting", "connected"]);
  });

  it("moves to another stream when the replica drains", async () => {
    const { session } = start();
    const first = await session(0);
    first.say({ messages: [{ kind: "draining", reconnectWithinMs: 1 }] });
    const second = await session(1);
    await vi.waitUntil(() => second.submitted.length > 0, PATIENCE);
    expect(first.closed).toBe(true);
  });

  it("reconnects to find another replica when one rejects it", async () => {
    const { session, reconnect } = start();
    const first = await session(0);
    first.fail(new Refusal("DATABASE_UNAVAILABLE", "Try another one.", { retryAfterMs: 1 }));
    await session(1);
    expect(reconnect).toHaveBeenCalledTimes(1);
  });

  it("moves at the first of two drain requests", async () => {
    const { session, reconnect } = start();
    const first = await session(0);
    first.say({ messages: [{ kind: "draining", reconnectWithinMs: 3_600_000 }] });
    first.say({ messages: [{ kind: "draining", reconnectWithinMs: 1 }] });
    const second = await session(1);
    second.say({ messages: [{ kind: "draining", reconnectWithinMs: 1 }] });
    second.say({ messages: [{ kind: "draining", reconnectWithinMs: 3_600_000 }] });
    await session(2);
    expect(reconnect).toHaveBeenCalledTimes(2);
  });

  it("ends after its goodbyes, or without them", async () => {
    const one = start(["a", "b"]);
    const { submitted } = await one.session(0);
    await one.stream.close({ goodbyeWithinMs: 5_000 });
    expect(submitted.at(-1)?.beats).toMatchObject([{ leaving: true }, { leaving: true }]);
    await expect(one.stream.done).resolves.toBeUndefined();

    const other = start(["a"]);
    const silent = await other.session(0);
    await vi.waitUntil(() => silent.submitted.length > 0, PATIENCE);
    await other.stream.close();
    await vi.waitUntil(() => silent.closed || silent.finished, PATIENCE);
    expect(silent.submitted.flatMap(({ beats }) => beats)).not.toContainEqual(
      expect.objectContaining({ leaving: true }),
    );
  });

  it("waits for the acknowledgement of goodbyes no longer than its limit", async () => {
    const { session, stream, backend } = start();
    await session(0);
    backend.acknowledging = false;
    await stream.close({ goodbyeWithinMs: 50 });
  });

  it("ends when the service rejects the stream for good", async () => {
    const { session, stream } = start();
    const on = await session(0);
    on.fail(new Refusal("UNAUTHENTICATED", "Show who you are."));
    await expect(stream.done).rejects.toMatchObject({ code: "UNAUTHENTICATED", reason: "UNAUTHENTICATED" });
  });
});
