import type { Listener } from "../rpc/sockets/listener.ts";

/** A listener cannot have its address. The message names the listener, the address, the cause, and the setting. */
export class AddressError extends Error {
  override readonly name = "AddressError";
}

/**
 * Starts a listener. Returns the address in force, `host:port`.
 *
 * @param name for messages
 * @param setting the environment variable that sets the address
 * @throws AddressError
 */
export async function listenOn(name: string, setting: string, address: string, listener: Listener): Promise<string> {
  try {
    return await listener.start(address);
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    const why = {
      EADDRINUSE: "another program listens there already",
      EACCES: "this user may not listen there",
      EADDRNOTAVAIL: "this machine has no such address",
      ENOTFOUND: "there is no such host",
    }[String(code)];
    if (why === undefined) throw error;
    throw new AddressError(`The ${name} cannot listen on ${address}: ${why}. Set ${setting} to another address.`, {
      cause: error,
    });
  }
}
