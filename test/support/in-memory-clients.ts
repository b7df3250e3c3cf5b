import { type Client, Code, ConnectError, createClient, type Transport } from "@connectrpc/connect";
import { createUniversalHandlerClient, createUniversalServiceHandlers } from "@connectrpc/connect/protocol";
import { createHandlerFactory, createTransport } from "@connectrpc/connect/protocol-connect";
import { pino } from "pino";
import { BadRequestSchema, ErrorInfoSchema } from "../../gen/google/rpc/error_details_pb.ts";
import { AgentService } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { UserService } from "../../gen/harborforge/agents/v1/user_service_pb.ts";
import { createAgentService } from "../../src/rpc/handlers/agent-service.ts";
import type { Backend } from "../../src/rpc/handlers/backend.ts";
import { createUserService } from "../../src/rpc/handlers/user-service.ts";
import { createPipeline, type Pipeline } from "../../src/rpc/pipeline/pipeline.ts";
import { Metrics } from "../../src/telemetry/metrics/metrics.ts";

export interface InMemoryClients {
  readonly agents: Client<typeof AgentService>;
  readonly users: Client<typeof UserService>;
  readonly pipeline: Pipeline;
  readonly transport: Transport;
}

/** Clients of the handlers behind the pipeline of both listeners, without a socket. */
export function createInMemoryClients(backend: Backend, encoding: "binary" | "json" = "binary"): InMemoryClients {
  const pipeline = createPipeline({ log: pino({ level: "silent" }), metrics: new Metrics() });
  const services = [
    pipeline.wrap(AgentService, createAgentService(backend)),
    pipeline.wrap(UserService, createUserService(backend)),
  ];
  const protocols = [createHandlerFactory({})];
  const handlers = services.flatMap((service) => createUniversalServiceHandlers(service, protocols));
  const transport: Transport = createTransport({
    httpClient: createUniversalHandlerClient(handlers),
    baseUrl: "https://in-memory",
    useBinaryFormat: encoding === "binary",
    interceptors: [],
    acceptCompression: [],
    sendCompression: null,
    compressMinBytes: Number.MAX_SAFE_INTEGER,
    readMaxBytes: 0xffffffff,
    writeMaxBytes: 0xffffffff,
  });
  return {
    agents: createClient(AgentService, transport),
    users: createClient(UserService, transport),
    pipeline,
    transport,
  };
}

/** An error as its caller sees it, with all details. */
export interface SeenRefusal {
  readonly code: string;
  readonly reason: string | undefined;
  readonly metadata: Readonly<Record<string, string>>;
  /** The paths of the invalid fields. */
  readonly fields: readonly string[];
  readonly message: string;
}

/** Waits for a call to be rejected. Fails when it succeeds. */
export async function refusalOf(call: Promise<unknown>): Promise<SeenRefusal> {
  const thrown = await call.then(
    (answer) => {
      throw new Error(`answered, not refused: ${JSON.stringify(answer, (_, value) => String(value))}`);
    },
    (reason: unknown) => reason,
  );
  if (!(thrown instanceof ConnectError)) throw thrown;
  const [info] = thrown.findDetails(ErrorInfoSchema);
  const [invalid] = thrown.findDetails(BadRequestSchema);
  return {
    code: Code[thrown.code] ?? String(thrown.code),
    reason: info?.reason,
    metadata: info?.metadata ?? {},
    fields: (invalid?.fieldViolations ?? []).map(({ field }) => field),
    message: thrown.rawMessage,
  };
}

/** Reads a stream to its end. */
export async function collect<T>(stream: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const one of stream) all.push(one);
  return all;
}
