import { constants } from "node:http2";
import type { Socket } from "node:net";

/** The first byte of every TLS connection: a record of the handshake (RFC 8446, 5.1). */
const HANDSHAKE = 0x16;

/** The first bytes of a connection of HTTP in cleartext: a method, or the preface of HTTP/2 (`PRI`). */
const HTTP = /^(?:GET|POST|PUT|PATCH|DELETE|HEAD|OPTIONS|PRI) /;
const LONGEST_METHOD_BYTES = 8;

/** How long a client has to read the response before its connection is destroyed, in milliseconds. */
const LINGER_MS = 1_000;

const ADVICE = "This port needs TLS: use an https:// address.";

/**
 * Calls `onTls` with a new connection that begins with TLS, and leaves its bytes unread. Tells a client that begins with HTTP in
 * cleartext that the port needs TLS: it would otherwise see a broken connection. Closes any other connection, and one that sends
 * nothing within `timeoutMs` milliseconds.
 */
export function expectTls(socket: Socket, timeoutMs: number, onTls: () => void): void {
  const timer = setTimeout(() => socket.destroy(), timeoutMs);
  const stop = (): void => clearTimeout(timer);
  socket.once("close", stop);
  socket.once("data", (bytes: Buffer) => {
    stop();
    socket.off("close", stop);
    socket.pause();
    if (bytes[0] === HANDSHAKE) {
      socket.unshift(bytes);
      onTls();
      return;
    }
    if (HTTP.test(bytes.toString("latin1", 0, LONGEST_METHOD_BYTES))) answer(socket, bytes);
    else socket.destroy();
  });
}

function answer(socket: Socket, bytes: Buffer): void {
  // What still arrives is discarded. Unread, it would reset the connection before the client has read the response.
  socket.resume();
  socket.end(bytes.toString("latin1", 0, 3) === "PRI" ? goAway() : badRequest());
  const timer = setTimeout(() => socket.destroy(), LINGER_MS);
  socket.once("close", () => clearTimeout(timer));
}

function badRequest(): string {
  const lines = [
    "HTTP/1.1 400 Bad Request",
    "Content-Type: text/plain; charset=utf-8",
    `Content-Length: ${ADVICE.length + 1}`,
    "Connection: close",
  ];
  return `${lines.join("\r\n")}\r\n\r\n${ADVICE}\n`;
}

const FRAME_HEAD_BYTES = 9;
const SETTINGS_FRAME = 4;
const GOAWAY_FRAME = 7;

/** HTTP/2 (RFC 9113): empty settings, then GOAWAY with INADEQUATE_SECURITY. Clients show its text. */
function goAway(): Buffer {
  const content = Buffer.alloc(8 + ADVICE.length);
  // The last stream that was served is 0: none.
  content.writeUInt32BE(constants.NGHTTP2_INADEQUATE_SECURITY, 4);
  content.write(ADVICE, 8, "latin1");
  return Buffer.concat([frameHead(0, SETTINGS_FRAME), frameHead(content.length, GOAWAY_FRAME), content]);
}

/** The head of a frame of the connection, without flags. */
function frameHead(length: number, type: number): Buffer {
  const head = Buffer.alloc(FRAME_HEAD_BYTES);
  head.writeUIntBE(length, 0, 3);
  head[3] = type;
  return head;
}
