import type { Duplex } from "node:stream";
import { TLSSocket } from "node:tls";
import { type ContextValues, createContextValues } from "@connectrpc/connect";
import { type Peer, peerKey } from "./call-values.ts";
import { peerIdentityOf } from "./peer-identity.ts";

/** Knows the other ends of connections, from when they were accepted until they are forgotten with them. */
export class Peers {
  readonly #peers = new WeakMap<object, Peer>();

  /**
   * Reads who is at the other end of `socket`, once. `connection` is by what a call will name it: the socket of HTTP/1.1,
   * the session of HTTP/2, whose own socket hides the real one.
   */
  add(connection: object, socket: Duplex & { readonly remoteAddress?: string | undefined }): void {
    this.#peers.set(connection, {
      address: socket.remoteAddress ?? "",
      encrypted: socket instanceof TLSSocket,
      identity: peerIdentityOf(socket),
    });
  }

  /** What a call's context starts with: who is at the other end of its connection. */
  valuesFor(connection: object | undefined): ContextValues {
    const values = createContextValues();
    const peer = connection === undefined ? undefined : this.#peers.get(connection);
    if (peer !== undefined) values.set(peerKey, peer);
    return values;
  }
}
