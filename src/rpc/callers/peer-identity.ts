import type { Duplex } from "node:stream";
import { TLSSocket } from "node:tls";
import type { Micros } from "../../contract/time.ts";
import { subjectAltNames } from "./subject-alt-names.ts";

/** Who the other end of a connection is, by the certificate that it showed and that our certificate authority signed. */
export interface PeerIdentity {
  /** URI names, such as `spiffe://example.org/claw/7`, as they stand in the certificate. */
  readonly uris: readonly string[];
  /** DNS names, as they stand in the certificate; a wildcard is one of them and stands for nothing. */
  readonly dnsNames: readonly string[];
  /** When the certificate ends, which nobody looks at again while the connection stands. */
  readonly expiresAt: Micros;
}

/**
 * The names in the certificate of a connection's other end. Undefined without TLS, without a certificate, with one that
 * was not verified, and with one whose names cannot be read: nothing is known then.
 */
export function peerIdentityOf(socket: Duplex): PeerIdentity | undefined {
  // `authorized` alone says nothing: it is the verdict on a certificate only where one was asked for and shown.
  if (!(socket instanceof TLSSocket) || !socket.authorized) return undefined;
  const certificate = socket.getPeerX509Certificate();
  const names = certificate && subjectAltNames(certificate);
  return names && { ...names, expiresAt: certificate.validToDate.getTime() * 1_000 };
}
