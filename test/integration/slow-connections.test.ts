import { expect, test } from "vitest";
import { firstOf, openBehindProxies, watchState } from "../support/proxied-database.ts";
import { until } from "../support/until.ts";

test("a database that refuses connections is absent at once", async () => {
  await using scene = await openBehindProxies();
  await scene.database.connect();
  await using watched = watchState(scene.database);
  firstOf(scene.proxies).cut();
  await until("it is away", () => watched.states.at(-1) === "unavailable", 3_000);
  expect(watched.states).toEqual(["unavailable"]);
  firstOf(scene.proxies).mend();
  await until("it is back", () => watched.states.at(-1) === "available", 5_000);
});

test("a connection closed for an unrelated reason does not make the database absent", async () => {
  await using scene = await openBehindProxies();
  await scene.database.connect();
  await using watched = watchState(scene.database);
  for (let n = 0; n < 3; n += 1) {
    const before = scene.database.answeredAt;
    firstOf(scene.proxies).drop();
    await until("it answers again", () => scene.database.answeredAt > before, 5_000);
  }
  expect(watched.states).not.toContain("unavailable");
});

test("the pool leaves a host that begins no more sessions within seconds for another host", {
  timeout: 60_000,
}, async () => {
  await using scene = await openBehindProxies(2);
  const [first, second] = scene.proxies;
  second?.cut();
  await scene.database.commits.query("SELECT 1");
  first?.drop();
  first?.swallow();
  second?.mend();
  // The handshake's own limit is 30 s.
  await until(
    "the other one is found",
    () =>
      scene.database.commits.query("SELECT 1").then(
        () => true,
        () => false,
      ),
    25_000,
  );
});

test("a connection that the server closes before it has an error listener does not end the process", async () => {
  await using scene = await openBehindProxies(1);
  const client = scene.database.newClient("unheard");
  await client.connect();
  const { rows } = await client.query<{ pid: number }>("SELECT pg_backend_pid() AS pid");
  // Not once() of node:events, which would listen for errors.
  const ended = new Promise<void>((resolve) => client.once("end", resolve));
  await scene.database.feed.query("SELECT pg_terminate_backend($1)", [rows[0]?.pid]);
  await ended;
  await expect(client.query("SELECT 1")).rejects.toThrow();
});
