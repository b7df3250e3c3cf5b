import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { expect, test } from "vitest";
import { openDatabase } from "../../src/storage/database.ts";
import { ConnectionTimeout, refusalFor } from "../../src/storage/failures.ts";
import { firstOf, openBehindProxies, watchState } from "../support/proxied-database.ts";
import { until } from "../support/until.ts";

test("a connection that takes longer than its caller waits serves the next caller", {
  timeout: 30_000,
}, async () => {
  await using scene = await openBehindProxies();
  const proxy = firstOf(scene.proxies);
  proxy.delayMs = 6_000;
  const { feed } = scene.database;
  await expect(feed.query("SELECT 1")).rejects.toThrow(ConnectionTimeout);
  expect((await feed.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
  expect(feed.idleCount).toBe(1);
});

test("Knex waits for slow connections, too", { timeout: 30_000 }, async () => {
  await using scene = await openBehindProxies();
  firstOf(scene.proxies).delayMs = 3_200;
  expect(await scene.database.knex.raw("SELECT 1 AS one")).toMatchObject({ rows: [{ one: 1 }] });
});

test("a database with slow connection setup is reported as slow, and never as absent", {
  timeout: 60_000,
}, async () => {
  await using scene = await openBehindProxies();
  const proxy = firstOf(scene.proxies);
  proxy.delayMs = 4_000;
  await scene.database.connect();
  await using watched = watchState(scene.database);
  await until("it answers", () => scene.database.clock.now() > 0);
  proxy.drop();
  await until("it is slow", () => watched.states.includes("slow"));
  await until("it answers in time again", () => watched.states.at(-1) === "available");
  expect(watched.states).not.toContain("unavailable");
});

test("a replica with a blocked event loop gets its connections", { timeout: 60_000 }, async () => {
  await using scene = await openBehindProxies();
  let held = true;
  const hold = (): void => {
    const end = performance.now() + 350;
    while (performance.now() < end);
    if (held) setImmediate(hold);
  };
  hold();
  // Some ten turns of the loop: longer than three seconds, which was the limit.
  await scene.database.connect().finally(() => {
    held = false;
  });
});

test("a database that does not respond is absent as soon as a query has timed out", { timeout: 30_000 }, async () => {
  await using scene = await openBehindProxies();
  await scene.database.connect();
  await using watched = watchState(scene.database);
  await until("it was asked", () => scene.database.feed.idleCount > 0);
  firstOf(scene.proxies).swallow();
  await until("it is away", () => watched.states.at(-1) === "unavailable", 12_000);
  expect(watched.states).toEqual(["slow", "unavailable"]);
});

test("a host of the list that is slow to begin a session is found", { timeout: 30_000 }, async () => {
  await using scene = await openBehindProxies(2);
  const [first, second] = scene.proxies;
  first?.cut();
  if (second !== undefined) second.delayMs = 2_500;
  await scene.database.connect();
  expect((await scene.database.commits.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
});

test.each([
  ["an answer of HTTP", Buffer.from("HTTP/1.0 503 Service Unavailable\r\n\r\n")],
  ["an unknown way to authenticate", Buffer.from([0x52, 0, 0, 0, 8, 0, 0, 0, 99])],
  ["a message that is too short", Buffer.from([0x52, 0, 0, 0, 4])],
  ["a row without fields", Buffer.from([0x44, 0, 0, 0, 4])],
  ["a number of fields below zero", Buffer.from([0x54, 0, 0, 0, 8, 0xff, 0xff, 0, 0])],
  ["zeros", Buffer.alloc(64)],
])("a server that sends %s loses its connection, without further effect", async (_, said) => {
  await using undo = new AsyncDisposableStack();
  const server = createServer((socket) => socket.on("error", () => undefined).once("data", () => socket.end(said)));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  undo.defer(() => void server.close());
  const { port } = server.address() as AddressInfo;
  const database = openDatabase({ url: `postgres://u:p@127.0.0.1:${port}/d`, onIdleError: () => undefined });
  undo.defer(() => database.close());
  for (const query of [() => database.feed.query("SELECT 1"), async () => await database.knex.raw("SELECT 1")]) {
    const thrown: unknown = await query().then(
      () => undefined,
      (error: unknown) => error,
    );
    expect(refusalFor(thrown)).toMatchObject({ reason: "DATABASE_UNAVAILABLE" });
  }
});
