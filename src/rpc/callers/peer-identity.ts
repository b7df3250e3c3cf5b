import type { Duplex } from "node:stream";
import { TLSSocket } from "node:tls";
import type { Micros } from "../../../common/contract/time.ts";
import { subjectAltNames } from "./subject-alt-names.ts";

/** The identity of a client, from its certificate, which a configured certificate authority has signed. */
export interface PeerIdentity {
  /** URI names, such as `spiffe://example.org/claw/7`, as in the certificate. */
  readonly uris: readonly string[];
  /** DNS names, as in the certificate. A wildcard is compared as text. */
  readonly dnsNames: readonly string[];
  /** When the certificate expires. TLS checks it during the handshake only. */
  readonly expiresAt: Micros;
}

/**
 * The identity of the client of a connection. Undefined without TLS, without a certificate, with one that was not verified,
 * and with one whose names are rejected.
 */
export function peerIdentityOf(socket: Duplex): PeerIdentity | undefined {
  // `authorized` counts only together with a certificate.
  if (!(socket instanceof TLSSocket) || !socket.authorized) return undefined;
  const certificate = socket.getPeerX509Certificate();
  const names = certificate && subjectAltNames(certificate);
  return names && { ...names, expiresAt: certificate.validToDate.getTime() * 1_000 };
}
