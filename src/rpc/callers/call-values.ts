import { type ContextKey, createContextKey } from "@connectrpc/connect";
import { ANYONE, type Principal } from "../../domain/principal.ts";
import type { PeerIdentity } from "./peer-identity.ts";

/** The authenticated caller. The pipeline sets it before the handler runs. Without authentication it is `ANYONE`. */
export const principalKey: ContextKey<Principal> = createContextKey(ANYONE, { description: "principal" });

/** The names of the listeners in metrics. */
export type ListenerName = "grpc" | "connect";

/** The client's end of a connection. */
export interface Peer {
  /** The listener that accepted it. */
  readonly listener: ListenerName;
  /** Its IP address, without a port; empty if it is unknown. */
  readonly address: string;
  /** Whether this process terminates TLS for the connection. */
  readonly encrypted: boolean;
  /** From the client's verified certificate; undefined without one. */
  readonly identity: PeerIdentity | undefined;
}

const UNKNOWN: Peer = { listener: "grpc", address: "", encrypted: false, identity: undefined };

/** The client's end of the call's connection. Both listeners set it before the pipeline runs. */
export const peerKey: ContextKey<Peer> = createContextKey(UNKNOWN, { description: "peer" });
