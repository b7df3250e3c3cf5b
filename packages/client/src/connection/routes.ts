import type { Transport } from "@connectrpc/connect";
import { CALL_TIMEOUT_MS, checkTimeout } from "./call-timeout.ts";
import { authorised, type Token } from "./token.ts";
import { typed } from "./typed-transport.ts";

/** A transport to one address. */
export interface Route {
  readonly transport: Transport;
  /** Closes its connection. Missing for transports of the caller. */
  readonly abort?: (why: string) => void;
}

/** The routes of transports of the caller. */
export function routesOf(transport: Transport | readonly Transport[]): readonly Route[] {
  return (Array.isArray(transport) ? transport : [transport]).map((one: Transport) => ({ transport: one }));
}

/** What all calls have in common. */
export interface CallSettings {
  /** Sent with every call as `authorization: Bearer …`. A function is called before each call. */
  readonly token?: Token | undefined;
  /** The deadline of unary calls that have none, in milliseconds. 0: none. Default: 10,000. */
  readonly timeoutMs?: number;
}

/**
 * The same transport, for `createClient` of Connect: its calls have the token and a deadline, and reject with a CallError.
 *
 * @example
 * const agents = createClient(AgentService, typedTransport(transport, { token })); // of harborforge-agents-client/contract
 *
 * @throws RangeError for an invalid timeout
 */
export function typedTransport(
  transport: Transport,
  { token, timeoutMs = CALL_TIMEOUT_MS }: CallSettings = {},
): Transport {
  return typed(token === undefined ? transport : authorised(transport, token), checkTimeout(timeoutMs));
}

/** Uses the callers of one route until `next`, then those of the next route, and the first ones after the last. */
export class Turns<Callers> {
  readonly #callers: readonly { readonly callers: Callers; readonly route: Route }[];
  // A random first route: otherwise all processes with the same list would use its first address.
  #turn: number;

  /** @throws RangeError without a route */
  constructor(routes: readonly Route[], callersOf: (transport: Transport) => Callers) {
    if (routes.length === 0) throw new RangeError("No address is given. Give address, addresses or transport.");
    this.#callers = routes.map((route) => ({ callers: callersOf(route.transport), route }));
    this.#turn = Math.floor(Math.random() * routes.length);
  }

  get current(): Callers {
    return this.#atTurn.callers;
  }

  next(): void {
    this.#atTurn.route.abort?.("the connection was replaced");
    this.#turn = (this.#turn + 1) % this.#callers.length;
  }

  close(): void {
    for (const { route } of this.#callers) route.abort?.("the connection was closed");
  }

  get #atTurn() {
    const caller = this.#callers[this.#turn];
    if (caller === undefined) throw new RangeError(`there is no route ${this.#turn}`);
    return caller;
  }
}
