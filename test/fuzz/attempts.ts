import { gzipSync } from "node:zlib";
import { type DescMethod, toBinary, toJson } from "@bufbuild/protobuf";
import { ServerReflection } from "../../gen/grpc/reflection/v1/reflection_pb.ts";
import { AgentService } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { TokenService } from "../../gen/harborforge/agents/v1/token_service_pb.ts";
import { UserService } from "../../gen/harborforge/agents/v1/user_service_pb.ts";
import { WakeService } from "../../gen/harborforge/agents/v1/wake_service_pb.ts";
import { Health } from "../../gen/health/v1/health_pb.ts";
import type { Random } from "../chaos/random.ts";
import type { Attempt, Protocol } from "./callers.ts";
import type { FuzzCredentials, Shown } from "./credentials.ts";
import { hostileMessage, mutated, mutatedJson, randomBytes, withHalfPairs } from "./hostile-values.ts";

export interface Listeners {
  readonly grpc: string;
  readonly http: string;
}

const METHODS: readonly DescMethod[] = [
  ...UserService.methods,
  ...AgentService.methods,
  // Each once more: their tests matter more than health and reflection.
  ...UserService.methods,
  ...AgentService.methods,
  ...TokenService.methods,
  ...WakeService.methods,
  ...Health.methods,
  ...ServerReflection.methods,
];

/** The milliseconds for which a stream is watched, and a response is awaited. */
const STREAM_MS = 150;
const ANSWER_MS = 20_000;

/** The next input: a call with hostile values, or one with broken bytes, framing or headers. */
export function nextAttempt(random: Random, listeners: Listeners, credentials?: FuzzCredentials): Attempt {
  const method = random.pick(METHODS);
  const path = `/${method.parent.typeName}/${method.name}`;
  const streams = method.methodKind !== "unary";
  const atGrpcListener = random.chance(0.45);
  const [http, protocol]: [1 | 2, Protocol] = atGrpcListener
    ? [2, "grpc"]
    : [random.chance(0.5) ? 1 : 2, random.pick(streams ? STREAMING : UNARY)];
  const http2 = protocol === "grpc" ? 2 : http;
  const json = !atGrpcListener && random.chance(0.5);
  const broken = random.chance(0.45);
  const messages = Array.from({ length: clientStreams(method) ? Math.floor(random.between(0, 4)) : 1 }, () =>
    oneMessage(method, random, json, broken && random.chance(0.7)),
  );
  const bare = broken && random.chance(0.25) ? brokenHeaders(random) : {};
  const shown: Shown | undefined = "authorization" in bare ? NOTHING_GOOD : credentials?.next(random);
  const headers = shown?.authorization === undefined ? bare : { ...bare, authorization: shown.authorization };
  const [first = new Uint8Array(0)] = messages;
  let body: Uint8Array;
  if (protocol === "connect" || protocol === "connect-get") body = first;
  else body = Buffer.concat(messages.map((message) => enveloped(message, random, broken, headers)));
  if (broken && random.chance(0.15)) body = mutated(body, random);
  return {
    address: atGrpcListener ? listeners.grpc : listeners.http,
    http: http2,
    protocol,
    json,
    path: protocol === "connect-get" ? query(path, first, json, random, broken) : path,
    headers,
    body,
    withinMs: streams ? STREAM_MS : ANSWER_MS,
    streams,
    ...(credentials === undefined ? {} : { method, role: shown?.role }),
  };
}

const NOTHING_GOOD: Shown = { authorization: undefined, role: undefined };

const UNARY: readonly Protocol[] = ["grpc", "grpc-web", "connect", "connect", "connect-get"];
const STREAMING: readonly Protocol[] = ["grpc", "grpc-web", "connect-stream"];

function clientStreams({ methodKind }: DescMethod): boolean {
  return methodKind === "client_streaming" || methodKind === "bidi_streaming";
}

function oneMessage(method: DescMethod, random: Random, json: boolean, damaged: boolean): Uint8Array {
  if (damaged && random.chance(0.2)) return randomBytes(random, 300);
  const message = hostileMessage(method.input, random);
  if (!json) {
    const bytes = withHalfPairs(toBinary(method.input, message), false);
    return damaged ? mutated(bytes, random) : bytes;
  }
  let text: string;
  try {
    text = JSON.stringify(toJson(method.input, message));
  } catch {
    // JSON cannot say some of what binary can, such as a Timestamp out of range.
    text = '{"agentId":"fuzz-1","updateTime":"2026-01-01T00:00:00Z"}';
  }
  return damaged ? mutatedJson(text, random) : withHalfPairs(Buffer.from(text), true);
}

function enveloped(message: Uint8Array, random: Random, broken: boolean, headers: Record<string, string>): Buffer {
  let flags = 0;
  let content = message;
  let length = message.length;
  if (broken) {
    if (random.chance(0.1)) flags = random.pick([1, 2, 3, 0x80, 0xff]);
    if (headers["grpc-encoding"] === "gzip" || headers["connect-content-encoding"] === "gzip") {
      flags = 1;
      content = random.chance(0.7) ? gzipSync(message) : message;
    }
    length = content.length;
    if (random.chance(0.1)) length = random.pick([0, 1, content.length + 1, 0xffff_ffff, 1_048_577]);
  }
  const head = Buffer.alloc(5);
  head.writeUInt8(flags, 0);
  head.writeUInt32BE(length, 1);
  return Buffer.concat([head, content]);
}

function brokenHeaders(random: Random): Record<string, string> {
  return random.pick<Record<string, string>>([
    { "grpc-encoding": "gzip" },
    { "connect-content-encoding": "gzip" },
    { "content-encoding": "gzip" },
    { "grpc-encoding": "nonsense" },
    { "grpc-timeout": "99999999H" },
    { "grpc-timeout": "1n" },
    { "grpc-timeout": "soon" },
    { "connect-timeout-ms": "9999999999" },
    { "connect-timeout-ms": "-1" },
    { "connect-protocol-version": "7" },
    { "content-type": "application/grpc+xml" },
    { "content-type": "text/plain" },
    { "content-type": "application/json; charset=utf-16" },
    { "x-bin": "!!!" },
    { "x-thing-bin": "AAA=" },
    { authorization: "Bearer hf_AAAAAAAAAAAA_AAAA_AAAA" },
    { authorization: "Bearer eyJhbGciOiJub25lIn0.e30." },
    { authorization: `Bearer ${"x".repeat(8_000)}` },
    { authorization: "Basic YTpi" },
    { authorization: "" },
    { "x-long": "y".repeat(9_000) },
    { "accept-encoding": "gzip, br, nonsense" },
    { "grpc-accept-encoding": "gzip" },
  ]);
}

function query(path: string, message: Uint8Array, json: boolean, random: Random, broken: boolean): string {
  // A URL of several kilobytes is rejected with the headers, as it should be; here it must get further.
  const short = message.subarray(0, 6_000);
  const base64 = !json || random.chance(0.3);
  const text = base64 ? Buffer.from(short).toString("base64url") : encodeURIComponent(Buffer.from(short).toString());
  const encoding = broken && random.chance(0.2) ? "xml" : json ? "json" : "proto";
  const damaged = broken && random.chance(0.3) ? `${text}${random.pick(["%", "%ff", "=", "&&", "%00", "+"])}` : text;
  return `${path}?connect=v1&encoding=${encoding}&message=${damaged}${base64 ? "&base64=1" : ""}`;
}
