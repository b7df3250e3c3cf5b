import { type ContextKey, createContextKey } from "@connectrpc/connect";
import { ANYONE, type Principal } from "../../domain/principal.ts";
import type { PeerIdentity } from "./peer-identity.ts";

/** Who calls. The pipeline sets it before a handler sees the call; while nobody has to show credentials, it is anyone. */
export const principalKey: ContextKey<Principal> = createContextKey(ANYONE, { description: "principal" });

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

/** Where a call comes from. Both listeners set it before the pipeline sees the call. */
export const peerKey: ContextKey<Peer> = createContextKey(NOBODY, { description: "peer" });
