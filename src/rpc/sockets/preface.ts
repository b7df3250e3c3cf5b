import type { Socket } from "node:net";

/** How every HTTP/2 connection in cleartext begins (RFC 9113, 3.4). No HTTP/1.1 request does. */
const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "latin1");

/**
 * Detects the protocol of a new connection from its first bytes, and leaves them unread. One byte may be enough, and they may
 * arrive one by one. Closes a connection that sends too few of them within `timeoutMs`, without calling `onProtocol`.
 */
export function sniffProtocol(
  socket: Socket,
  timeoutMs: number,
  onProtocol: (protocol: "http1" | "http2") => void,
): void {
  let seen: Buffer = Buffer.alloc(0);
  const timer = setTimeout(() => socket.destroy(), timeoutMs);
  const stop = (): void => {
    clearTimeout(timer);
    socket.off("data", onData);
    socket.off("end", onEnd);
    socket.off("close", stop);
  };
  const onEnd = (): void => {
    stop();
    socket.destroy();
  };
  const onData = (chunk: Buffer): void => {
    seen = seen.length === 0 ? chunk : Buffer.concat([seen, chunk]);
    const length = Math.min(seen.length, PREFACE.length);
    const http2 = seen.subarray(0, length).equals(PREFACE.subarray(0, length));
    if (http2 && length < PREFACE.length) return;
    stop();
    socket.pause();
    socket.unshift(seen);
    onProtocol(http2 ? "http2" : "http1");
    // HTTP/1.1 reads from the socket's stream, which has to flow. HTTP/2 reads from the handle below it.
    if (!http2) socket.resume();
  };
  socket.on("data", onData);
  socket.once("end", onEnd);
  socket.once("close", stop);
}
