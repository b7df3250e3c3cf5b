import { CallError, type ConnectedClients, createServiceClients } from "harborforge-agents-client/internal/calls";
import { withoutPasswords } from "../../../common/secrets/redaction.ts";
import { CommandFailure, callFailure } from "../call-failure.ts";
import * as calls from "../calls/service-calls.ts";
import { EXIT_FAILED, EXIT_OK } from "../exit-codes.ts";
import type { Host } from "../host.ts";
import { printable } from "../terminal/printable.ts";
import { OutputClosed, Printer } from "../terminal/printer.ts";
import { type Connection, cleartextAddresses, readConnection } from "./connection.ts";
import type { ConnectionFlags } from "./connection-options.ts";

/** The environment of a command that calls the service. */
export interface ServiceContext {
  readonly host: Host;
  readonly connection: Connection;
  readonly clients: ConnectedClients;
  /** The clients with the timeout of `--timeout`. */
  readonly caller: calls.Caller;
  /** The calls of the service. A command gets them from here: its file needs no client until it runs. */
  readonly calls: typeof calls;
  readonly out: Printer;
  readonly err: Printer;
}

/**
 * Runs a command that calls the service. A failure is one line on standard error. A closed output is not a failure.
 *
 * @returns the exit code
 */
export async function withService(
  host: Host,
  flags: ConnectionFlags,
  work: (context: ServiceContext) => Promise<number>,
): Promise<number> {
  const out = new Printer(host.stdout, host.env);
  const err = new Printer(host.stderr, host.env);
  let where = "";
  try {
    const connection = readConnection(flags, host.env);
    where = connection.addresses.join(", ");
    const cleartext = cleartextAddresses(connection);
    if (cleartext.length > 0) {
      await err.print(`warning: the token is sent to ${cleartext.join(", ")} unencrypted. Use https://.\n`);
    }
    using clients = createServiceClients(targetOf(connection));
    const caller = { clients, addresses: connection.addresses.length, timeoutMs: connection.timeoutMs };
    const exitCode = await work({ host, connection, clients, caller, calls, out, err });
    if (out.failure !== undefined) throw new OutputClosed();
    return exitCode;
  } catch (error) {
    if (error instanceof OutputClosed) {
      if (out.failure === undefined) return EXIT_OK;
      err.put(`error: Writing the output failed: ${printable(out.failure.message)}. Free some space, and try again.\n`);
      return EXIT_FAILED;
    }
    const { message, exitCode } = failureOf(error, where);
    err.put(`error: ${message}\n`);
    return exitCode;
  }
}

/** The target of the client library. */
export function targetOf({ addresses, token, ca, identity }: Connection) {
  const tls = { ...(ca === undefined ? {} : { ca: [...rootCertificates(), ca] }), ...identity };
  return { addresses, ...(token === undefined ? {} : { token }), tls };
}

/** An import of node:tls would parse all of them, for commands that need none. */
function rootCertificates(): readonly string[] {
  return process.getBuiltinModule("node:tls").rootCertificates;
}

function failureOf(error: unknown, address: string): CommandFailure {
  if (error instanceof CommandFailure) return error;
  if (error instanceof CallError) return callFailure(error, address);
  return new CommandFailure(`Unexpected error: ${printable(withoutPasswords(String(error)))}`, EXIT_FAILED);
}
