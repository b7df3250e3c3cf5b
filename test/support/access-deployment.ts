import { Code, ConnectError } from "@connectrpc/connect";
import { pino } from "pino";
import { expect } from "vitest";
import { type Addresses, Server } from "../../src/server.ts";
import { CREDENTIALS, type Mint, openMint } from "./access.ts";
import { createTestDatabase } from "./cluster.ts";
import { HeartbeatClient } from "./heartbeat-client.ts";
import { GRPC_JS, openClients, PROTOCOLS, type ProtocolClients } from "./protocol-clients.ts";
import { failureOf } from "./rpc-clients.ts";
import { until } from "./until.ts";

export const CONNECT = PROTOCOLS.find(({ name }) => name === "Connect JSON over HTTP/2") ?? GRPC_JS;

export interface Deployment extends AsyncDisposable {
  readonly replicas: readonly Addresses[];
  readonly mint: Mint;
  readonly admin: ProtocolClients;
  readonly logged: readonly string[];
}

export async function deploy(options: { replicas: number }): Promise<Deployment> {
  const undo = new AsyncDisposableStack();
  const database = undo.use(await createTestDatabase());
  const mint = undo.use(openMint(database.url));
  const logged: string[] = [];
  const replicas: Addresses[] = [];
  for (let n = 0; n < options.replicas; n += 1) {
    const server = await Server.start({
      databaseUrl: database.url,
      grpcAddress: "127.0.0.1:0",
      httpAddress: "127.0.0.1:0",
      pace: { shortestIntervalMs: 10_000, heartbeatsPerSecond: 10_000 },
      firstLeaseMs: 60_000,
      access: CREDENTIALS,
      log: pino({ level: "trace" }, { write: (line: string) => logged.push(line) }),
    });
    undo.defer(() => server.stop(0));
    replicas.push(server.addresses);
  }
  const [first] = replicas;
  if (first === undefined) throw new Error("no replica");
  const { secret } = await mint.issue({ role: "admin" });
  const admin = undo.use(openClients(GRPC_JS, first, secret));
  return { replicas, mint, admin, logged, [Symbol.asyncDispose]: () => undo.disposeAsync() };
}

/** A stream that is read until it ends, and its error. */
export class OpenWatch {
  messages = 0;
  ended: ConnectError | "end" | undefined;
  readonly stop = new AbortController();

  constructor({ agents }: ProtocolClients) {
    const read = async (): Promise<void> => {
      const options = { signal: this.stop.signal, timeoutMs: 0 };
      for await (const _ of agents.watchAgents({ bookmarkInterval: { seconds: 1n } }, options)) this.messages += 1;
    };
    read().then(
      () => {
        this.ended = "end";
      },
      (error: unknown) => {
        this.ended = ConnectError.from(error);
      },
    );
  }
}

export function expectUnauthenticated(ended: ConnectError | "end" | undefined): void {
  expect(ended).toBeInstanceOf(ConnectError);
  if (ended instanceof ConnectError) {
    expect(failureOf(ended)).toMatchObject({ code: Code.Unauthenticated, reason: "UNAUTHENTICATED" });
  }
}

export interface OpenStreams extends AsyncDisposable {
  readonly beating: readonly HeartbeatClient[];
  readonly watching: readonly OpenWatch[];
  readonly clients: readonly ProtocolClients[];
  untilAllEnded(): Promise<void>;
}

/** A heartbeat stream and a watch on every replica, through both listeners, all with one token. */
export async function openStreams(
  { replicas }: Deployment,
  secret: string,
  agentId: string | undefined,
): Promise<OpenStreams> {
  const undo = new AsyncDisposableStack();
  const clients = replicas.flatMap((addresses) =>
    [GRPC_JS, CONNECT].map((protocol) => undo.use(openClients(protocol, addresses, secret))),
  );
  const beating = agentId === undefined ? [] : clients.map(({ agents }) => undo.use(new HeartbeatClient(agents)));
  const watching = clients.map((each) => new OpenWatch(each));
  undo.defer(() => {
    for (const watch of watching) watch.stop.abort();
  });
  await until("all streams are open", () => {
    return watching.every(({ messages }) => messages > 0) && beating.every(({ responses }) => responses.length > 0);
  });
  return {
    beating,
    watching,
    clients,
    untilAllEnded: async () => {
      await until("all streams have ended", () => [...beating, ...watching].every(({ ended }) => ended !== undefined));
    },
    [Symbol.asyncDispose]: () => undo.disposeAsync(),
  };
}
