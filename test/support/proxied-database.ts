import { pino } from "pino";
import { type Database, openDatabase } from "../../src/storage/database.ts";
import { DatabaseProbe, type DatabaseState } from "../../src/storage/probe.ts";
import { createTestDatabase } from "./cluster.ts";
import { FaultProxy } from "./fault-proxy.ts";

export interface Scene extends AsyncDisposable {
  readonly proxies: readonly FaultProxy[];
  readonly database: Database;
}

/** A database behind proxies, each of which is a host of its URL. */
export async function openBehindProxies(count = 1): Promise<Scene> {
  await using undo = new AsyncDisposableStack();
  const { url } = undo.use(await createTestDatabase());
  const { port } = new URL(url);
  const proxies: FaultProxy[] = [];
  for (let n = 0; n < count; n += 1) proxies.push(undo.use(await FaultProxy.open(() => [Number(port)])));
  const through = url.replace(/@[^/]+\//, `@${proxies.map(({ address }) => address).join(",")}/`);
  const database = openDatabase({ url: through, onIdleError: () => undefined });
  undo.defer(() => database.close());
  const everything = undo.move();
  return { proxies, database, [Symbol.asyncDispose]: () => everything.disposeAsync() };
}

export function firstOf<T>(values: readonly T[]): T {
  const [first] = values;
  if (first === undefined) throw new Error("there is none");
  return first;
}

/** A probe, and its states so far. */
export function watchState(database: Database) {
  const states: DatabaseState[] = [];
  const log = pino({ level: "silent" });
  const probe = new DatabaseProbe({ database, onState: (state) => states.push(state), log });
  probe.start();
  return { states, [Symbol.asyncDispose]: () => probe.close() };
}
