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
 * The request with its messages decompressed by `makeInput`, so that Connect has nothing to decompress. Short
 * uncompressed messages stay as they are. Binary ones are checked for too many values.
 *
 * @throws ConnectError, or rejects with it, for an invalid message of a GET request. For other requests, reading the body
 * throws
 */
export function withReadMessages(
  request: Request,
  desc: DescMessage,
  makeInput: () => MessageInput,
): Request | Promise<Request> {
  if (request.method === "GET") {
    // Most are not compressed, and need not be parsed twice.
    return mayBeCompressed(request.url) ? withReadQuery(request, makeInput) : request;
  }
  const contentType = request.header.get("content-type");
  const enveloped = /^application\/(grpc|connect\+)/i.test(contentType ?? "");
  const name = /^application\/grpc/i.test(contentType ?? "") ? "grpc-encoding" : "connect-content-encoding";
  const isGzip = request.header.get(enveloped ? name : "content-encoding") === "gzip";
  const binary = isBinary(contentType);
  // JSON is counted when it is read.
  const isShort = Number(request.header.get("content-length") ?? LARGE_BYTES) < LARGE_BYTES;
  if (!binary && !enveloped && !isGzip && isShort) return request;
  if (isGzip && !enveloped) {
    request.header.delete("content-encoding");
    request.header.delete("content-length");
    answerAlike(request);
  }
  const format: MessageFormat = { desc: binary ? desc : undefined, enveloped, encoding: isGzip ? "gzip" : undefined };
  return { ...request, body: wholeMessages(request.body, makeInput(), format) };
}

/** Whether a URL may say that its message is compressed. Its parameters may be percent-encoded. */
export function mayBeCompressed(url: string): boolean {
  return url.includes("compression=") || /[?&][^=&]*%[^=&]*=/.test(url);
}

/** The message of a GET request is in the URL. Its size is limited by that of the headers, unless it is compressed. */
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

/** Connect's rule: if the request does not say what the client accepts, the response is compressed like the request. */
function answerAlike({ header }: Request): void {
  if (!header.has("accept-encoding")) header.set("accept-encoding", "gzip");
}
