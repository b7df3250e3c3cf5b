import { type ServerResponse, STATUS_CODES } from "node:http";
import type { Duplex } from "node:stream";
import { codeToHttpStatus, errorToJsonBytes } from "@connectrpc/connect/protocol-connect";
import { Refusal } from "../../domain/errors.ts";
import { fromRefusal } from "../errors/error-table.ts";
import type { ListenerLimits } from "../sockets/limits.ts";

const HEADER_OVERFLOW = "HPE_HEADER_OVERFLOW";

/** Responses to input that Node could not parse as HTTP/1.1: there is no request for it, so nothing else responds. */
export interface Http1Errors {
  /**
   * Call it for every response, since an error must not be written into one that is being sent. Returns the number of
   * open responses of its connection, including this one.
   */
  answering(res: ServerResponse): number;
  /** Handles the server's event `clientError`, after which the listener owns the connection. */
  onClientError(error: NodeJS.ErrnoException, socket: Duplex): void;
}

export function createHttp1Errors(limits: Pick<ListenerLimits, "maxHeaderBytes" | "lingerMs">): Http1Errors {
  const responses = new WeakMap<Duplex, Set<ServerResponse>>();
  const rejected = new WeakSet<Duplex>();

  return {
    answering: (res) => {
      const { socket } = res.req;
      const open = responses.get(socket) ?? new Set();
      responses.set(socket, open.add(res));
      res.once("close", () => open.delete(res));
      return open.size;
    },
    onClientError: (error, socket) => {
      // Node emits the event again for more input on the connection.
      if (rejected.has(socket)) return;
      rejected.add(socket);
      const open = [...(responses.get(socket) ?? [])];
      // The response to one request must not be taken for the response to the request before.
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
      // The rest of the request is on its way: closing the connection before it is read could discard the response.
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
 * In Connect's form, which is readable JSON: the protocol is unknown without headers. Most often it is a GET request with
 * its message in the URL.
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
