import { rootCertificates } from "node:tls";
import { CallError, type ConnectedClients, createServiceClients } from "harborforge-agents-client";
import { CommandFailure, callFailure } from "../call-failure.ts";
import type { Caller } from "../calls/directory-calls.ts";
import { EXIT_FAILED, EXIT_OK } from "../exit-codes.ts";
import type { Host } from "../host.ts";
import { printable } from "../terminal/printable.ts";
import { Printer, ReaderGone } from "../terminal/printer.ts";
import { type Connection, type ConnectionFlags, isOverheard, readConnection } from "./connection.ts";

/** What a command that calls the service works with. */
export interface Session {
  readonly host: Host;
  readonly connection: Connection;
  readonly clients: ConnectedClients;
  /** For `src/client`'s calls: these clients, with the patience that was asked for. */
  readonly caller: Caller;
  readonly out: Printer;
  readonly err: Printer;
}

/**
 * Does the work of a command that calls the service. What fails is one line on standard error; that nobody reads the
 * output any more is no failure.
 *
 * @returns the exit code
 */
export async function withService(
  host: Host,
  flags: ConnectionFlags,
  work: (session: Session) => Promise<number>,
): Promise<number> {
  const out = new Printer(host.stdout, host.env);
  const err = new Printer(host.stderr, host.env);
  let address = "";
  try {
    const connection = readConnection(flags, host.env);
    ({ address } = connection);
    if (isOverheard(connection)) {
      await err.print(`warning: the token travels to ${address} unencrypted; use https:// where others can listen.\n`);
    }
    using clients = createServiceClients(targetOf(connection));
    const caller = { clients, timeoutMs: connection.timeoutMs };
    const exitCode = await work({ host, connection, clients, caller, out, err });
    if (out.failure !== undefined) throw new ReaderGone();
    return exitCode;
  } catch (error) {
    if (error instanceof ReaderGone) {
      if (out.failure === undefined) return EXIT_OK;
      err.put(`error: The output cannot be written: ${printable(out.failure.message)}. Make room, and try again.\n`);
      return EXIT_FAILED;
    }
    const { message, exitCode } = failureOf(error, address);
    err.put(`error: ${message}\n`);
    return exitCode;
  }
}

/** What `src/client` takes. */
export function targetOf({ address, token, ca, identity }: Connection) {
  const tls = { ...(ca === undefined ? {} : { ca: [...rootCertificates, ca] }), ...identity };
  return { address, ...(token === undefined ? {} : { token }), tls };
}

function failureOf(error: unknown, address: string): CommandFailure {
  if (error instanceof CommandFailure) return error;
  if (error instanceof CallError) return callFailure(error, address);
  return new CommandFailure(`It failed: ${printable(String(error))}`, EXIT_FAILED);
}
