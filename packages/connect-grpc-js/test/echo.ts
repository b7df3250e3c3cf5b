import { type ClientHttp2Session, type ClientHttp2Stream, connect } from "node:http2";
import { create, toBinary } from "@bufbuild/protobuf";
import { fileDesc, type GenService, serviceDesc } from "@bufbuild/protobuf/codegenv2";
import {
  FileDescriptorProtoSchema,
  file_google_protobuf_wrappers,
  type StringValueSchema,
} from "@bufbuild/protobuf/wkt";
import { createServiceImplSpec, type ServiceImpl } from "@connectrpc/connect";
import {
  Client,
  type ClientOptions,
  credentials,
  Metadata,
  Server,
  ServerCredentials,
  type ServiceError,
} from "@grpc/grpc-js";
import { type BridgeOptions, createGrpcBridge, type GrpcBridge } from "../src/index.ts";

// A service with a method of each kind, whose messages all are `google.protobuf.StringValue`: it needs no generated code.

const TEXT = ".google.protobuf.StringValue";

const file = create(FileDescriptorProtoSchema, {
  name: "echo.proto",
  package: "echo",
  syntax: "proto3",
  dependency: ["google/protobuf/wrappers.proto"],
  service: [
    {
      name: "Echo",
      method: [
        { name: "Say", inputType: TEXT, outputType: TEXT },
        { name: "Join", inputType: TEXT, outputType: TEXT, clientStreaming: true },
        { name: "Split", inputType: TEXT, outputType: TEXT, serverStreaming: true },
        { name: "Chat", inputType: TEXT, outputType: TEXT, clientStreaming: true, serverStreaming: true },
      ],
    },
  ],
});

type Method<Kind> = { methodKind: Kind; input: typeof StringValueSchema; output: typeof StringValueSchema };

export const Echo: GenService<{
  say: Method<"unary">;
  join: Method<"client_streaming">;
  split: Method<"server_streaming">;
  chat: Method<"bidi_streaming">;
}> = serviceDesc(
  fileDesc(Buffer.from(toBinary(FileDescriptorProtoSchema, file)).toString("base64"), [file_google_protobuf_wrappers]),
  0,
);

/** Serves `implementation` on a free port of the loopback interface. */
export function serveEcho(implementation: Partial<ServiceImpl<typeof Echo>>, options?: BridgeOptions) {
  const bridge = createGrpcBridge([createServiceImplSpec(Echo, implementation)], options);
  return listen(bridge, new Server({ interceptors: [bridge.interceptor] }));
}

/** The same with a server of the test's own, among whose interceptors the bridge is. */
export async function listen(bridge: GrpcBridge, server: Server) {
  bridge.register(server);
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    );
  });
  const clients: EchoClient[] = [];
  const sessions: ClientHttp2Session[] = [];
  return {
    /** Opens a call on a connection of its own, whose stream reads nothing before it is resumed. */
    openStream: (method: string, request: string): ClientHttp2Stream => {
      const session = connect(`http://127.0.0.1:${port}`);
      sessions.push(session);
      session.on("error", () => undefined);
      const stream = session.request({
        ":method": "POST",
        ":path": `/echo.Echo/${method}`,
        "content-type": "application/grpc",
        te: "trailers",
      });
      stream.pause();
      stream.on("error", () => undefined);
      const message = textMessage(request);
      const head = Buffer.alloc(5);
      head.writeUInt32BE(message.length, 1);
      stream.write(Buffer.concat([head, message]));
      return stream;
    },
    connect: (clientOptions?: ClientOptions): EchoClient => {
      const client = new EchoClient(`127.0.0.1:${port}`, clientOptions);
      clients.push(client);
      return client;
    },
    [Symbol.asyncDispose]: async (): Promise<void> => {
      for (const client of clients) client.close();
      for (const session of sessions) session.destroy();
      server.forceShutdown();
    },
  };
}

/** The bytes of a `StringValue`. */
export function textMessage(text: string): Buffer {
  return Buffer.concat([Buffer.from([0x0a]), varint(Buffer.byteLength(text)), Buffer.from(text)]);
}

function varint(value: number): Buffer {
  const bytes: number[] = [];
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return Buffer.from([...bytes, rest]);
    bytes.push((rest % 128) + 128);
  }
}

function textOf(bytes: Buffer): string {
  let at = 1;
  while ((bytes[at] ?? 0) >= 0x80) at += 1;
  return bytes.toString("utf8", at + 1);
}

export interface Reply {
  readonly texts: readonly string[];
  /** Undefined if the call succeeded. */
  readonly error: ServiceError | undefined;
  readonly headers: Metadata | undefined;
  readonly trailers: Metadata | undefined;
}

interface CallOptions {
  readonly deadline?: number;
  readonly metadata?: Readonly<Record<string, string | Buffer>>;
}

/** A grpc-js client that sends bytes, so that tests can send malformed messages, too. */
export class EchoClient extends Client {
  constructor(address: string, options?: ClientOptions) {
    super(address, credentials.createInsecure(), options);
  }

  open(method: "Say" | "Join" | "Split" | "Chat", options: CallOptions = {}) {
    const metadata = new Metadata();
    for (const [name, value] of Object.entries(options.metadata ?? {})) metadata.set(name, value);
    const { deadline } = options;
    return this.makeBidiStreamRequest<Buffer, string>(
      `/echo.Echo/${method}`,
      (bytes) => bytes,
      textOf,
      metadata,
      deadline === undefined ? {} : { deadline },
    );
  }

  /** Sends all messages, half-closes and waits for the status. */
  call(
    method: "Say" | "Join" | "Split" | "Chat",
    requests: readonly (string | Buffer)[],
    options?: CallOptions,
  ): Promise<Reply> {
    const call = this.open(method, options);
    for (const request of requests) call.write(typeof request === "string" ? textMessage(request) : request);
    call.end();
    return replyOf(call);
  }
}

/** Reads a call to its end. */
export function replyOf(call: ReturnType<EchoClient["open"]>): Promise<Reply> {
  return new Promise((resolve) => {
    const texts: string[] = [];
    let headers: Metadata | undefined;
    let error: ServiceError | undefined;
    call.on("data", (text: string) => texts.push(text));
    call.on("metadata", (metadata: Metadata) => {
      headers = metadata;
    });
    call.on("error", (thrown: ServiceError) => {
      error = thrown;
    });
    call.on("status", ({ metadata }: { metadata: Metadata }) => {
      // The error, if any, comes in the same turn.
      setImmediate(() => resolve({ texts, error, headers, trailers: metadata }));
    });
  });
}
