import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { expect, test, vi } from "vitest";
import { UserService } from "../../gen/harborforge/agents/v1/user_service_pb.ts";
import { openStage, says } from "../support/program.ts";
import { PATIENCE } from "../support/until.ts";

const users = (grpc: string) => createClient(UserService, createGrpcTransport({ baseUrl: grpc }));

test("HARBORFORGE_DRAIN_DELAY: a stop is announced, the replica serves on, then it drains and ends", async () => {
  await using stage = await openStage();
  const serving = await stage.serve({ env: { HARBORFORGE_DRAIN_DELAY: "4s" } });
  serving.kill("SIGTERM");
  await says(serving, /"event":"service.stop_announced","delayMs":4000/);
  const ready = await fetch(`${serving.http}/readyz`);
  expect([ready.status, await ready.text()]).toEqual([503, "not ready: draining\n"]);
  await users(serving.grpc).createUser({ username: "ada" });
  expect(serving.stderr).not.toMatch(/service\.draining/);
  const { code, stderr } = await serving.ended;
  expect(code).toBe(0);
  expect(stderr).toMatch(/service\.stop_announced[\s\S]*service\.draining[\s\S]*service\.stopped/);
});

test("a second signal ends the delay at once", async () => {
  await using stage = await openStage();
  const serving = await stage.serve({ env: { HARBORFORGE_DRAIN_DELAY: "5m", HARBORFORGE_DRAIN_GRACE: "5m" } });
  serving.kill("SIGTERM");
  await says(serving, /service\.stop_announced/);
  await vi.waitFor(() => {
    if (!/service\.stopping_now/.test(serving.stderr)) serving.kill("SIGTERM");
    expect(serving.stderr).toMatch(/service\.stopping_now/);
  }, PATIENCE);
  expect(await serving.ended).toMatchObject({ code: 0, signal: null });
});

test("the end of the embedded PostgreSQL ends the delay", async () => {
  await using stage = await openStage();
  const serving = await stage.serve({ env: { HARBORFORGE_DRAIN_DELAY: "5m" } });
  serving.kill("SIGTERM");
  await says(serving, /service\.stop_announced/);
  process.kill(await stage.postmaster(), "SIGKILL");
  const { code, stderr } = await serving.ended;
  expect(code).toBe(1);
  expect(stderr).toMatch(/service\.postgres_ended/);
});
