import { type ContextKey, createContextKey } from "@connectrpc/connect";
import type { PeerIdentity } from "./doors/peer-identity.ts";

/**
 * Who calls, as transitions record it (`service:…`, `agent:…`, `user:…`). While nobody has to show credentials, it is an
 * unnamed service; where an agent speaks for itself the handler knows better.
 */
export const actorKey: ContextKey<string> = createContextKey("service:anonymous", { description: "actor" });

/** The other end of the connection that a call came by. */
export interface Peer {
  /** Its IP address, without a port; empty where it is not known. */
  readonly address: string;
  /** Whether the connection is TLS, up to this process. */
  readonly encrypted: boolean;
  /** By the certificate that it showed and that was verified; undefined for who showed none. */
  readonly identity: PeerIdentity | undefined;
}

const NOBODY: Peer = { address: "", encrypted: false, identity: undefined };

/** Where a call comes from. Both doors set it before the pipeline sees the call. */
export const peerKey: ContextKey<Peer> = createContextKey(NOBODY, { description: "peer" });
