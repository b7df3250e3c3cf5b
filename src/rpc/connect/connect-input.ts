import type { DescMessage } from "@bufbuild/protobuf";
import type { UniversalServerRequest } from "@connectrpc/connect/protocol";
import { LARGE_BYTES, type MessageInput } from "../sockets/message-queue.ts";
import { type MessageFormat, wholeMessages } from "../sockets/whole-messages.ts";

type Request = UniversalServerRequest & { body: AsyncIterable<Uint8Array> };

const BINARY_CONTENT_TYPE = /^application\/(grpc(-web)?(\+proto)?|connect\+proto|proto)\s*(;|$)/i;

export function isBinary(contentType: string | null): boolean {
  return BINARY_CONTENT_TYPE.test(contentType ?? "");
}

/**
 * The request with messages that `makeInput`'s input has decompressed, so that Connect finds nothing to decompress. What is short
 * and not compressed stays as it is, but for being looked at where it is binary.
 *
 * @throws ConnectError, or rejects with it, for a message by GET that cannot be had; of others reading the body does
 */
export function withReadMessages(
  request: Request,
  desc: DescMessage,
  makeInput: () => MessageInput,
): Request | Promise<Request> {
  if (request.method === "GET") {
    // Most are not compressed, and need not be taken apart twice.
    return mayBeCompressed(request.url) ? withReadQuery(request, makeInput) : request;
  }
  const contentType = request.header.get("content-type");
  const enveloped = /^application\/(grpc|connect\+)/i.test(contentType ?? "");
  const name = /^application\/grpc/i.test(contentType ?? "") ? "grpc-encoding" : "connect-content-encoding";
  const isGzip = request.header.get(enveloped ? name : "content-encoding") === "gzip";
  const binary = isBinary(contentType);
  // JSON is counted where it is read.
  const isShort = Number(request.header.get("content-length") ?? LARGE_BYTES) < LARGE_BYTES;
  if (!binary && !isGzip && isShort) return request;
  if (isGzip && !enveloped) {
    request.header.delete("content-encoding");
    request.header.delete("content-length");
    answerAlike(request);
  }
  const format: MessageFormat = { desc: binary ? desc : undefined, enveloped, encoding: isGzip ? "gzip" : undefined };
  return { ...request, body: wholeMessages(request.body, makeInput(), format) };
}

/** Whether a URL may say that its message is compressed. A name may have percent signs, and means the same then. */
export function mayBeCompressed(url: string): boolean {
  return url.includes("compression=") || /[?&][^=&]*%[^=&]*=/.test(url);
}

/** A message by GET comes in the URL, and is no longer than headers may be: unless it is compressed. */
async function withReadQuery(request: Request, makeInput: () => MessageInput): Promise<Request> {
  const url = new URL(request.url);
  const { searchParams: query } = url;
  if (query.get("compression") !== "gzip") return request;
  const message = query.get("message") ?? "";
  const bytes = Buffer.from(message, query.get("base64") === "1" ? "base64url" : "utf8");
  const read = await makeInput().read(bytes, "gzip");
  query.delete("compression");
  query.set("base64", "1");
  query.set("message", read.toString("base64url"));
  answerAlike(request);
  return { ...request, url: url.toString() };
}

/** Compresses the response like the request if the request does not say what the client accepts, as Connect does. */
function answerAlike({ header }: Request): void {
  if (!header.has("accept-encoding")) header.set("accept-encoding", "gzip");
}
