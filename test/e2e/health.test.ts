import { Code, createClient } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Health, HealthCheckResponse_ServingStatus as Status } from "../../gen/health/v1/health_pb.ts";
import { Refusal } from "../../src/domain/errors.ts";
import { DIALECTS, failure } from "../support/rpc-clients.ts";
import { eventually, type RunningListeners, startListeners } from "../support/rpc-listeners.ts";

let listeners: RunningListeners;

beforeAll(async () => {
  listeners = await startListeners();
});

afterAll(async () => {
  await listeners[Symbol.asyncDispose]();
});

describe.each(DIALECTS)("health through $name", ({ listener, transport }) => {
  const client = () =>
    createClient(Health, transport(listener === "grpc" ? listeners.grpcAddress : listeners.connectAddress));

  test("Check knows the server, each service, and nothing else", async () => {
    for (const service of ["", "harborforge.agents.v1.AgentService", "harborforge.agents.v1.UserService"]) {
      expect((await client().check({ service })).status).toBe(Status.SERVING);
    }
    expect(await failure(client().check({ service: "no.Such" }))).toMatchObject({
      code: Code.NotFound,
      reason: "NOT_FOUND",
    });
    expect(Object.keys((await client().list({})).statuses)).toContain("grpc.health.v1.Health");
  });

  test("Watch sends the state at once, then every change, also while the server rejects calls", async () => {
    const statuses: Status[] = [];
    const controller = new AbortController();
    const watching = (async () => {
      for await (const { status } of client().watch({ service: "" }, { signal: controller.signal }))
        statuses.push(status);
    })();
    await eventually("the first state came", () => statuses.length === 1);
    listeners.refuse = new Refusal("DRAINING", "this replica is stopping");
    listeners.health.suspend("draining");
    listeners.health.suspend("the database is away");
    await eventually("the change came", () => statuses.length === 2);
    expect((await client().check({})).status).toBe(Status.NOT_SERVING);
    listeners.health.resume("the database is away");
    listeners.health.resume("draining");
    listeners.refuse = undefined;
    await eventually("the change back came", () => statuses.length === 3);
    expect(statuses).toEqual([Status.SERVING, Status.NOT_SERVING, Status.SERVING]);
    controller.abort();
    await expect(watching).rejects.toThrow();
  });

  test("Watch of an unknown service reports that and stays open", async () => {
    await eventually("no other stream is open", () => listeners.pipeline.openStreams.size === 0);
    const controller = new AbortController();
    const statuses: Status[] = [];
    const watching = (async () => {
      for await (const { status } of client().watch({ service: "no.Such" }, { signal: controller.signal }))
        statuses.push(status);
    })();
    await eventually("the state came", () => statuses.length === 1);
    expect(statuses).toEqual([Status.SERVICE_UNKNOWN]);
    expect(listeners.pipeline.openStreams.size).toBe(1);
    controller.abort();
    await expect(watching).rejects.toThrow();
    await eventually("the stream ended", () => listeners.pipeline.openStreams.size === 0);
  });
});
