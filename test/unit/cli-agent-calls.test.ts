import { createServiceClients } from "harborforge-agents-client";
import { baseUrlOf, createRetryPause } from "harborforge-agents-client/internal";
import { describe, expect, it } from "vitest";
import { statusName } from "../../common/contract/enum-values.ts";
import { durationOf, microsOf, millisOf, timestampOf } from "../../common/contract/timestamps.ts";
import { ensureAgent, readPace, setAgentStatus } from "../../src/simulate/service-calls.ts";
import { createFakeBackend, FAKE_NOW, FAKE_PACE } from "../support/fake-backend.ts";
import { createInMemoryClients } from "../support/in-memory-clients.ts";

describe("baseUrlOf", () => {
  it.each([
    ["127.0.0.1:50051", "http://127.0.0.1:50051"],
    ["http://localhost:50051/", "http://localhost:50051"],
    ["https://agents.example:443", "https://agents.example"],
    ["[::1]:50051", "http://[::1]:50051"],
  ])("accepts %s", (address, url) => {
    expect(baseUrlOf(address)).toBe(url);
  });

  it.each([
    "",
    "a b",
    "ftp://host:1",
    "http://host/path",
    "http://user@host",
    "host:port",
    "host:99999",
  ])("rejects %j", (address) => {
    expect(baseUrlOf(address)).toBeUndefined();
    expect(() => createServiceClients({ address })).toThrow(RangeError);
  });
});

describe("calls for agents", () => {
  const registration = { username: "u", displayName: "U", agentId: "a", clawIdentifier: "claw-1" };

  it("create the user and its agent, and reuse them the next time", async () => {
    const clients = createServiceClients(createInMemoryClients(createFakeBackend()));
    const made = await ensureAgent(clients, registration);
    expect(made).toMatchObject({ agentId: "a", clawIdentifier: "claw-1", status: "idle" });
    expect(await ensureAgent(clients, registration)).toEqual(made);
  });

  it("move an agent of another claw, and create one for a user without an agent", async () => {
    const clients = createServiceClients(createInMemoryClients(createFakeBackend()));
    const made = await ensureAgent(clients, registration);
    const moved = await ensureAgent(clients, { ...registration, clawIdentifier: "claw-2" });
    expect(moved).toMatchObject({ id: made.id, clawIdentifier: "claw-2" });
    await clients.agents.deleteAgent({ agentId: "a" });
    expect((await ensureAgent(clients, registration)).id).not.toBe(made.id);
  });

  it("read the pace", async () => {
    expect(await readPace(createServiceClients(createInMemoryClients(createFakeBackend())))).toEqual(FAKE_PACE);
  });

  it("map errors to the reasons of the contract", async () => {
    const backend = createFakeBackend();
    const clients = createServiceClients(createInMemoryClients(backend));
    const { revision } = backend.put("a");
    const change = { agentId: "a", status: "on_call" } as const;
    expect(await setAgentStatus(clients, { ...change, expectedRevision: revision })).toMatchObject({
      status: "on_call",
    });
    const late = setAgentStatus(clients, { ...change, expectedRevision: revision });
    await expect(late).rejects.toMatchObject({ code: "ABORTED", reason: "REVISION_MISMATCH" });
  });
});

describe("values of the wire", () => {
  it("keep times exact", () => {
    expect(microsOf(timestampOf(FAKE_NOW))).toBe(FAKE_NOW);
    expect(millisOf(durationOf(1_234.567))).toBe(1_234.567);
  });

  it("have a word for unknown enum numbers", () => {
    expect(statusName(0)).toBeUndefined();
    expect(statusName(3)).toBe("busy");
    expect(statusName(99)).toBe("unknown");
  });
});

describe("createRetryPause", () => {
  it("doubles up to ten seconds with random jitter, and obeys the server's delay", () => {
    const pauses = createRetryPause(() => 1);
    expect(Array.from({ length: 8 }, () => pauses.next())).toEqual([
      250, 500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000,
    ]);
    pauses.reset();
    expect(pauses.next(3_000)).toBe(3_250);
    expect(createRetryPause(() => 0).next()).toBe(125);
  });
});
