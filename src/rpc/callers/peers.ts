import type { Duplex } from "node:stream";
import { TLSSocket } from "node:tls";
import { type ContextValues, createContextValues } from "@connectrpc/connect";
import { type ListenerName, type Peer, peerKey } from "./call-values.ts";
import { peerIdentityOf } from "./peer-identity.ts";

/** The clients' ends of open connections. */
export class Peers {
  readonly #listener: ListenerName;
  readonly #peers = new WeakMap<object, Peer>();

  constructor(listener: ListenerName) {
    this.#listener = listener;
  }

  /**
   * Reads address and identity from `socket`, once. `connection` is the key for `valuesFor`: the socket of HTTP/1.1, the session of
   * HTTP/2, whose own socket is a proxy of the real one.
   */
  add(connection: object, socket: Duplex & { readonly remoteAddress?: string | undefined }): void {
    this.#peers.set(connection, {
      listener: this.#listener,
      address: socket.remoteAddress ?? "",
      encrypted: socket instanceof TLSSocket,
      identity: peerIdentityOf(socket),
    });
  }

  /** The values that a call's context starts with: the client's end of its connection. */
  valuesFor(connection: object | undefined): ContextValues {
    const values = createContextValues();
    const peer = connection === undefined ? undefined : this.#peers.get(connection);
    if (peer !== undefined) values.set(peerKey, peer);
    return values;
  }
}
