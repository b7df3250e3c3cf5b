import {
  create,
  type DescMessage,
  type DescMethod,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import type { Transport } from "@connectrpc/connect";
import {
  type CallOptions,
  type ClientDuplexStream,
  type ClientReadableStream,
  Metadata,
  type ServiceError,
} from "@grpc/grpc-js";
import { fromServiceError, grpcClient } from "./rpc-clients.ts";

export interface GrpcJsTransport extends Transport {
  close(): void;
}

/**
 * grpc-js as a transport of Connect's clients, so that the same tests call through it. It is generic over
 * descriptors, and uses nothing of Connect on the wire or in errors but the error class.
 *
 * @param defaultTimeoutMs the deadline of calls that name none; a call with 0 has none
 */
export function createGrpcJsTransport(address: string, defaultTimeoutMs: number): GrpcJsTransport {
  const client = grpcClient(address);
  const options = (timeoutMs = defaultTimeoutMs): CallOptions =>
    timeoutMs > 0 ? { deadline: Date.now() + timeoutMs } : {};
  return {
    close: () => client.close(),

    unary: (method, signal, timeoutMs, header, input) =>
      new Promise((resolve, reject) => {
        const headers = new Headers();
        let answer: MessageShape<typeof method.output> | undefined;
        const call = client.makeUnaryRequest(
          path(method),
          writer(method.input),
          reader(method.output),
          create(method.input, input),
          metadataOf(header),
          options(timeoutMs),
          (error, message) => {
            if (error !== null) reject(fromServiceError(error));
            else answer = message;
          },
        );
        call.on("metadata", (metadata) => copyInto(headers, metadata));
        call.on("status", ({ metadata }) => {
          if (answer === undefined) return reject(new Error("the call ended without a message"));
          const trailer = copyInto(new Headers(), metadata);
          resolve({ stream: false, service: method.parent, method, header: headers, trailer, message: answer });
        });
        signal?.addEventListener("abort", () => call.cancel(), { once: true });
      }),

    stream: async (method, signal, timeoutMs, header, input) => {
      const call = client.makeBidiStreamRequest(
        path(method),
        writer(method.input),
        reader(method.output),
        metadataOf(header),
        options(timeoutMs),
      );
      const headers = new Headers();
      const trailer = new Headers();
      call.on("metadata", (metadata) => copyInto(headers, metadata));
      call.on("status", ({ metadata }) => copyInto(trailer, metadata));
      signal?.addEventListener("abort", () => call.cancel(), { once: true });
      const requests = input[Symbol.asyncIterator]();
      const stop = () => void requests.return?.();
      call.once("end", stop);
      call.once("error", stop);
      void send(method.input, requests, call);
      return { stream: true, service: method.parent, method, header: headers, trailer, message: received(call) };
    },
  };
}

async function send<Desc extends DescMessage>(
  desc: Desc,
  requests: AsyncIterator<MessageInitShape<Desc>>,
  call: ClientDuplexStream<MessageShape<Desc>, unknown>,
): Promise<void> {
  try {
    for (let next = await requests.next(); next.done !== true; next = await requests.next()) {
      call.write(create(desc, next.value));
    }
    call.end();
  } catch {
    call.cancel();
  }
}

async function* received<T>(call: ClientReadableStream<T>): AsyncGenerator<T> {
  try {
    for await (const message of call) yield message;
  } catch (error) {
    throw isServiceError(error) ? fromServiceError(error) : error;
  } finally {
    call.cancel();
  }
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && "code" in error && "details" in error && "metadata" in error;
}

function path(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`;
}

function writer<Desc extends DescMessage>(desc: Desc): (message: MessageShape<Desc>) => Buffer {
  return (message) => Buffer.from(toBinary(desc, message));
}

function reader<Desc extends DescMessage>(desc: Desc): (bytes: Buffer) => MessageShape<Desc> {
  return (bytes) => fromBinary(desc, bytes);
}

function metadataOf(header: HeadersInit | undefined): Metadata {
  const metadata = new Metadata();
  new Headers(header).forEach((value, key) => {
    metadata.set(key, value);
  });
  return metadata;
}

function copyInto(headers: Headers, metadata: Metadata): Headers {
  for (const [key, value] of Object.entries(metadata.getMap())) {
    headers.set(key, typeof value === "string" ? value : value.toString("base64"));
  }
  return headers;
}
