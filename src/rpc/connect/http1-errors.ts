import { type ServerResponse, STATUS_CODES } from "node:http";
import type { Duplex } from "node:stream";
import { codeToHttpStatus, errorToJsonBytes } from "@connectrpc/connect/protocol-connect";
import { Refusal } from "../../domain/errors.ts";
import { fromRefusal } from "../errors/errors.ts";
import type { ListenerLimits } from "../sockets/limits.ts";

const HEADER_OVERFLOW = "HPE_HEADER_OVERFLOW";

/** What Node could not read as HTTP/1.1: no request was made of it, so nobody else answers. */
export interface Http1Errors {
  /**
   * To be told of every response, since one that is being sent must not be written into. Returns how many are open on its
   * connection, this one among them.
   */
  answering(res: ServerResponse): number;
  /** For the server's event `clientError`, which leaves the connection to its listener. */
  onClientError(error: NodeJS.ErrnoException, socket: Duplex): void;
}

export function createHttp1Errors(limits: Pick<ListenerLimits, "maxHeaderBytes" | "lingerMs">): Http1Errors {
  const responses = new WeakMap<Duplex, Set<ServerResponse>>();
  const refused = new WeakSet<Duplex>();

  return {
    answering: (res) => {
      const { socket } = res.req;
      const open = responses.get(socket) ?? new Set();
      responses.set(socket, open.add(res));
      res.once("close", () => open.delete(res));
      return open.size;
    },
    onClientError: (error, socket) => {
      // Node tells of it again for whatever else comes on the connection.
      if (refused.has(socket)) return;
      refused.add(socket);
      const open = [...(responses.get(socket) ?? [])];
      // An answer to the head of one request must not pass for that to the request before it.
      const misread = error.code === HEADER_OVERFLOW ? open.length > 0 : open.some((res) => res.headersSent);
      if (error.code === "ECONNRESET" || !socket.writable || misread) {
        socket.destroy();
        return;
      }
      const lingers = error.code === HEADER_OVERFLOW;
      socket.end(answerTo(error.code, limits.maxHeaderBytes), () => {
        if (!lingers) socket.destroy();
      });
      if (!lingers) return;
      // The rest of what was too long is on its way: closing before it is read would take the answer back.
      socket.resume();
      const timer = setTimeout(() => socket.destroy(), limits.lingerMs);
      socket.once("close", () => clearTimeout(timer));
    },
  };
}

function answerTo(code: string | undefined, maxHeaderBytes: number): Buffer {
  switch (code) {
    case HEADER_OVERFLOW:
      return headersTooLarge(maxHeaderBytes);
    case "HPE_CHUNK_EXTENSIONS_OVERFLOW":
      return answer(413);
    case "ERR_HTTP_REQUEST_TIMEOUT":
      return answer(408);
    default:
      return answer(400);
  }
}

/**
 * In Connect's form, which is JSON that people read, too: what the headers would have said of the protocol is unknown.
 * Most often it is a read by GET, whose message is in the URL.
 */
function headersTooLarge(maxHeaderBytes: number): Buffer {
  const error = fromRefusal(
    new Refusal(
      "LIMIT_EXCEEDED",
      `URL and headers must not be larger than ${maxHeaderBytes} bytes together: send long requests by POST`,
      { metadata: { limit: "maxHeaderBytes", maxHeaderBytes: String(maxHeaderBytes) } },
    ),
  );
  return answer(codeToHttpStatus(error.code), errorToJsonBytes(error, undefined));
}

function answer(status: number, json: Uint8Array = new Uint8Array(0)): Buffer {
  const head = [
    `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ""}`,
    "Connection: close",
    `Content-Length: ${json.length}`,
    ...(json.length === 0 ? [] : ["Content-Type: application/json"]),
  ];
  return Buffer.concat([Buffer.from(`${head.join("\r\n")}\r\n\r\n`, "latin1"), json]);
}
