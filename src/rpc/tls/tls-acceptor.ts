import { constants } from "node:crypto";
import type { Socket } from "node:net";
import { createServer, type SecureContextOptions, type Server, type TLSSocket } from "node:tls";
import type { Logger } from "../../../common/logging/logger.ts";
import { readTlsFiles, TlsError, type TlsMaterial, type TlsSettings, validateTlsFiles } from "./certificate-files.ts";
import { expectTls } from "./cleartext.ts";

/** The TLS of both listeners, with one set of files. Reloads them when they change. */
export interface Tls {
  /** Creates the TLS side of a listener, for the protocols of `alpn`. */
  acceptor(options: AcceptorOptions): TlsAcceptor;
  /** When the current certificate expires, in unix milliseconds. */
  readonly notAfterMs: number;
  /** Checks the files now, as it does every `everyMs`. */
  reload(): void;
  /** Stops the checks. Open connections go on. */
  close(): void;
}

export interface AcceptorOptions {
  /** Application protocols, the preferred first. */
  readonly alpn: readonly string[];
  /** How long a client may take for each of its flights of the handshake, in milliseconds. */
  readonly handshakeMs: number;
  /** Called with each connection after its handshake. The socket has a listener for errors. */
  readonly onSecure: (socket: TLSSocket) => void;
}

export interface TlsAcceptor {
  /**
   * Starts the handshake on a new connection. Destroys it if the handshake fails or takes too long. A client of HTTP in cleartext
   * gets the advice to use TLS.
   */
  accept(socket: Socket): void;
}

export interface TlsOptions extends TlsSettings {
  readonly log: Logger;
  /** How often the files are checked, in milliseconds. Default 5 s. */
  readonly everyMs?: number;
}

/**
 * Reads the files, and checks them every few seconds. Polling needs no signal, works on every file system, and for files that are
 * replaced in place or by a symbolic link of their folder. New files are used for new connections. Invalid files change nothing,
 * and are logged once, if two checks in a row found them: a key and a certificate that are written one after the other do not
 * match in between.
 *
 * @throws TlsError if the files are invalid at the start
 */
export function createTls(options: TlsOptions): Tls {
  const { log } = options;
  const servers = new Set<Server>();
  let material = validateTlsFiles(readTlsFiles(options), options);
  /** The problem that the last check found, and whether it was logged. */
  let problem: { readonly text: string; logged: boolean } | undefined;
  let warnedOf: TlsMaterial | undefined;

  function warnIfNotValidNow(): void {
    const now = Date.now();
    if (warnedOf === material || (now >= material.notBeforeMs && now < material.notAfterMs)) return;
    warnedOf = material;
    const validity = { notBefore: new Date(material.notBeforeMs), notAfter: new Date(material.notAfterMs) };
    if (now < material.notBeforeMs)
      log.warn({ event: "tls.certificate_not_yet_valid", ...validity }, "the TLS certificate is not valid yet");
    else log.warn({ event: "tls.certificate_expired", ...validity }, "the TLS certificate has expired");
  }

  function reload(): void {
    try {
      const texts = readTlsFiles(options);
      const same = texts.cert === material.cert && texts.key === material.key && texts.ca === material.ca;
      if (!same) {
        const fresh = validateTlsFiles(texts, options);
        for (const server of servers) server.setSecureContext(contextOf(fresh, options));
        material = fresh;
        log.info({ event: "tls.reloaded", notAfter: new Date(fresh.notAfterMs) }, "reloaded the TLS files");
      }
      problem = undefined;
    } catch (error) {
      const text = error instanceof TlsError ? error.message : "unexpected";
      if (problem?.text !== text) {
        problem = { text, logged: false };
      } else if (!problem.logged) {
        problem.logged = true;
        if (error instanceof TlsError)
          log.warn(
            { event: "tls.files_rejected", problem: text },
            "new TLS files are invalid, keeping the previous ones",
          );
        else
          log.error(
            { event: "tls.reload_failed", err: error },
            "cannot reload the TLS files, keeping the previous ones",
          );
      }
    }
    warnIfNotValidNow();
  }

  warnIfNotValidNow();
  const timer = setInterval(reload, options.everyMs ?? 5_000);
  timer.unref();

  function acceptor({ alpn, handshakeMs, onSecure }: AcceptorOptions): TlsAcceptor {
    const asks = options.clientCert !== "none";
    const server = createServer({
      ...contextOf(material, options),
      ALPNProtocols: [...alpn],
      requestCert: asks,
      rejectUnauthorized: options.clientCert === "required",
      // The timer starts with the connection, and again when the server sends, which it does twice at most.
      handshakeTimeout: handshakeMs,
    });
    servers.add(server);
    server.on("tlsClientError", (error: Error, socket: TLSSocket) => {
      // The error's text may describe the client's bytes. Only its code is logged.
      log.debug(
        { event: "tls.handshake_failed", code: "code" in error ? error.code : undefined },
        "TLS handshake failed",
      );
      socket.destroy();
    });
    server.on("secureConnection", (socket: TLSSocket) => {
      socket.on("error", () => undefined);
      // Also if certificates are optional: an invalid one is rejected.
      if (asks && !socket.authorized && socket.getPeerX509Certificate() !== undefined) {
        log.debug({ event: "tls.client_rejected", code: socket.authorizationError }, "TLS client certificate rejected");
        socket.destroy();
        return;
      }
      onSecure(socket);
    });
    return {
      accept: (socket) => expectTls(socket, handshakeMs, () => void server.emit("connection", socket)),
    };
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
      // A resumed session is not verified again: it would outlive the removal of its authority.
      (clientCert === "none" ? 0 : constants.SSL_OP_NO_TICKET),
  };
}
