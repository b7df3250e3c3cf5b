import { constants } from "node:crypto";
import type { Socket } from "node:net";
import { createServer, type SecureContextOptions, type Server, type TLSSocket } from "node:tls";
import type { Logger } from "pino";
import { judgeTlsFiles, readTlsFiles, TlsError, type TlsMaterial, type TlsSettings } from "./certificate-files.ts";

/** The TLS of both listeners: one set of files, read again when they change. */
export interface Tls {
  /** Makes connections of `alpn`'s protocols secure, until closed. */
  acceptor(options: AcceptorOptions): TlsAcceptor;
  /** Until when the certificate in force counts, in unix milliseconds. */
  readonly notAfterMs: number;
  /** Looks at the files now; what `everyMs` does by itself. */
  reload(): void;
  /** Reads no more files. What was accepted goes on. */
  close(): void;
}

export interface AcceptorOptions {
  /** Application protocols, the preferred first. */
  readonly alpn: readonly string[];
  /** How long a client may take for each of its turns in the handshake, in milliseconds. */
  readonly handshakeMs: number;
  /** Given every connection whose handshake went well. It has a listener for errors. */
  readonly onSecure: (socket: TLSSocket) => void;
}

export interface TlsAcceptor {
  /** Takes a connection in cleartext from its first byte. One whose handshake fails, or takes too long, is destroyed. */
  accept(socket: Socket): void;
}

export interface TlsOptions extends TlsSettings {
  readonly log: Logger;
  /** How often the files are looked at, in milliseconds. Default 5 s. */
  readonly everyMs?: number;
}

/**
 * Reads the files, and reads them again every few seconds: polling needs no signal, works on every file system, and does
 * not care how a file is replaced, by its folder's symbolic link or in place. A new pair counts for connections that come
 * then. One that cannot be used changes nothing; it is warned of once, and only when it was seen twice, since who writes
 * two files one after the other has for a moment two that do not fit.
 *
 * @throws TlsError where the files cannot be used at all
 */
export function createTls(options: TlsOptions): Tls {
  const { log } = options;
  const servers = new Set<Server>();
  let material = judgeTlsFiles(readTlsFiles(options), options);
  /** What was wrong at the last look, and whether it was said. */
  let wrong: { readonly what: string; said: boolean } | undefined;
  let warnedOf: TlsMaterial | undefined;

  function warnIfOutOfTime(): void {
    const now = Date.now();
    if (warnedOf === material || (now >= material.notBeforeMs && now < material.notAfterMs)) return;
    warnedOf = material;
    const what = now < material.notBeforeMs ? "does not count yet" : "has expired";
    log.warn(
      { notBefore: new Date(material.notBeforeMs), notAfter: new Date(material.notAfterMs) },
      `the TLS certificate ${what}: clients will refuse it`,
    );
  }

  function reload(): void {
    try {
      const texts = readTlsFiles(options);
      const same = texts.cert === material.cert && texts.key === material.key && texts.ca === material.ca;
      if (!same) {
        const fresh = judgeTlsFiles(texts, options);
        for (const server of servers) server.setSecureContext(contextOf(fresh, options));
        material = fresh;
        log.info({ notAfter: new Date(fresh.notAfterMs) }, "new TLS files are in force");
      }
      wrong = undefined;
    } catch (error) {
      const what = error instanceof TlsError ? error.message : "unexpected";
      if (wrong?.what !== what) {
        wrong = { what, said: false };
      } else if (!wrong.said) {
        wrong.said = true;
        if (error instanceof TlsError) log.warn({}, `${what} The TLS files read before stay in force.`);
        else log.error({ err: error }, "the TLS files cannot be read again: those read before stay in force");
      }
    }
    warnIfOutOfTime();
  }

  warnIfOutOfTime();
  const timer = setInterval(reload, options.everyMs ?? 5_000);
  timer.unref();

  function acceptor({ alpn, handshakeMs, onSecure }: AcceptorOptions): TlsAcceptor {
    const asks = options.clientCert !== "none";
    const server = createServer({
      ...contextOf(material, options),
      ALPNProtocols: [...alpn],
      requestCert: asks,
      rejectUnauthorized: options.clientCert === "required",
      // Counts from the first moment, and anew with what the server sends, which it does twice at most.
      handshakeTimeout: handshakeMs,
    });
    servers.add(server);
    server.on("tlsClientError", (error: Error, socket: TLSSocket) => {
      // Its text is about the bytes, and quotes none of them.
      log.debug({ code: "code" in error ? error.code : undefined }, "TLS handshake failed");
      socket.destroy();
    });
    server.on("secureConnection", (socket: TLSSocket) => {
      socket.on("error", () => undefined);
      // Who may come without a certificate may still not come with a wrong one.
      if (asks && !socket.authorized && socket.getPeerX509Certificate() !== undefined) {
        log.debug({ code: socket.authorizationError }, "TLS client certificate refused");
        socket.destroy();
        return;
      }
      onSecure(socket);
    });
    return { accept: (socket) => void server.emit("connection", socket) };
  }

  return {
    acceptor,
    get notAfterMs() {
      return material.notAfterMs;
    },
    reload,
    close: () => clearInterval(timer),
  };
}

function contextOf({ cert, key, ca }: TlsMaterial, { clientCert }: TlsSettings): SecureContextOptions {
  return {
    cert,
    key,
    ...(ca === undefined ? {} : { ca }),
    minVersion: "TLSv1.2",
    secureOptions:
      constants.SSL_OP_NO_RENEGOTIATION |
      // A resumed session is not verified again: an authority that was taken back would count as long as a ticket does.
      (clientCert === "none" ? 0 : constants.SSL_OP_NO_TICKET),
  };
}
