import { fromBinary } from "@bufbuild/protobuf";
import { type Code, ConnectError, type Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { Client, credentials, type ServiceError } from "@grpc/grpc-js";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "../../gen/google/rpc/error_details_pb.ts";
import { StatusSchema } from "../../gen/google/rpc/status_pb.ts";

/** The fields of a failed call for its caller, the same through every protocol. */
export interface Failure {
  readonly code: Code;
  readonly message: string;
  readonly reason: string | undefined;
  readonly domain: string | undefined;
  readonly metadata: Record<string, string> | undefined;
  readonly fields: string[];
  readonly retryMs: number | undefined;
}

export function failureOf(error: ConnectError): Failure {
  const info = error.findDetails(ErrorInfoSchema)[0];
  const retry = error.findDetails(RetryInfoSchema)[0]?.retryDelay;
  return {
    code: error.code,
    message: error.rawMessage,
    reason: info?.reason,
    domain: info?.domain,
    metadata: info?.metadata,
    fields: error.findDetails(BadRequestSchema).flatMap((detail) => detail.fieldViolations.map(({ field }) => field)),
    retryMs: retry === undefined ? undefined : Number(retry.seconds) * 1_000 + retry.nanos / 1_000_000,
  };
}

/** The failure of a promise that must fail. */
export async function failure(call: Promise<unknown>): Promise<Failure> {
  const outcome = await call.then(
    () => new Error("the call went well"),
    (error: unknown) => error,
  );
  if (!(outcome instanceof ConnectError)) throw outcome;
  return failureOf(outcome);
}

/** A grpc-js error in the same form. */
export function fromServiceError(error: ServiceError): ConnectError {
  const connectError = new ConnectError(error.details, Number(error.code));
  const [bytes] = error.metadata.get("grpc-status-details-bin");
  if (bytes instanceof Buffer) {
    connectError.details = fromBinary(StatusSchema, bytes).details.map(({ typeUrl, value }) => ({
      type: typeUrl.slice(typeUrl.lastIndexOf("/") + 1),
      value,
    }));
  }
  return connectError;
}

/** A raw grpc-js client, on a connection of its own. */
export function grpcClient(address: string, options: Record<string, unknown> = {}): Client {
  return new Client(address, credentials.createInsecure(), { "grpc.use_local_subchannel_pool": 1, ...options });
}

/** A unary call of grpc-js with raw bytes. */
export function rawUnary(client: Client, path: string, request: Uint8Array, timeoutMs = 5_000): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest<Buffer, Buffer>(
      path,
      (bytes) => bytes,
      (bytes) => bytes,
      Buffer.from(request),
      { deadline: Date.now() + timeoutMs },
      (error, response) => {
        if (error !== null) reject(fromServiceError(error));
        else if (response === undefined) reject(new Error("no response"));
        else resolve(response);
      },
    );
  });
}

export interface Dialect {
  readonly name: string;
  readonly listener: "grpc" | "connect";
  readonly bidi: boolean;
  transport(address: string): Transport;
}

const baseUrl = (address: string): string => `http://${address}`;

/** Every way to call a listener with Connect's transports. */
export const DIALECTS: readonly Dialect[] = [
  {
    name: "gRPC at the gRPC listener",
    listener: "grpc",
    bidi: true,
    transport: (address) => createGrpcTransport({ baseUrl: baseUrl(address) }),
  },
  {
    name: "gRPC at the Connect listener",
    listener: "connect",
    bidi: true,
    transport: (address) => createGrpcTransport({ baseUrl: baseUrl(address) }),
  },
  ...(["1.1", "2"] as const).flatMap((httpVersion): Dialect[] => [
    {
      name: `gRPC-Web over HTTP/${httpVersion}`,
      listener: "connect",
      bidi: httpVersion === "2",
      transport: (address) => createGrpcWebTransport({ baseUrl: baseUrl(address), httpVersion }),
    },
    {
      name: `Connect JSON over HTTP/${httpVersion}`,
      listener: "connect",
      bidi: httpVersion === "2",
      transport: (address) =>
        createConnectTransport({ baseUrl: baseUrl(address), httpVersion, useBinaryFormat: false }),
    },
    {
      name: `Connect binary over HTTP/${httpVersion}`,
      listener: "connect",
      bidi: httpVersion === "2",
      transport: (address) => createConnectTransport({ baseUrl: baseUrl(address), httpVersion, useBinaryFormat: true }),
    },
  ]),
];
