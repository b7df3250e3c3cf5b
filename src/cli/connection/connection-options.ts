import { type Command, Option } from "commander";
import { durationArgument } from "../arguments.ts";
import { inDetail } from "../help.ts";

/** The flags of all commands that call the service. */
export interface ConnectionFlags {
  readonly address?: string;
  readonly token?: string;
  readonly tokenFile?: string;
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  readonly profile?: string;
  readonly timeout: number;
}

export const DEFAULT_ADDRESS = "http://127.0.0.1:50051";
const DEFAULT_TIMEOUT_MS = 10_000;

/** Adds the flags of `ConnectionFlags` to a command. */
export function addConnectionOptions(command: Command): Command {
  const options = [
    new Option(
      "--address <urls>",
      `the service's gRPC listener: http://host:port, https://host:port or host:port; several with commas between them, of which one that fails is replaced by the next (default: ${DEFAULT_ADDRESS}; env: HARBORFORGE_ADDRESS)`,
    ),
    new Option(
      "--token <token>",
      "an API token; visible in the process list, so prefer --token-file (env: HARBORFORGE_TOKEN)",
    ),
    new Option("--token-file <path>", "a file with the token, not readable by others (env: HARBORFORGE_TOKEN_FILE)"),
    new Option("--ca <path>", "certificate authorities of the service, PEM (env: HARBORFORGE_CA)"),
    new Option("--cert <path>", "a client certificate, PEM; needs --key (env: HARBORFORGE_CERT)"),
    new Option("--key <path>", "its private key, not readable by others (env: HARBORFORGE_KEY)"),
    new Option("--profile <name>", "use address and credentials of this profile (env: HARBORFORGE_PROFILE)"),
    new Option("--timeout <time>", "the timeout of a call, such as 500ms or 1m")
      .default(DEFAULT_TIMEOUT_MS, "10s")
      .argParser(durationArgument(1, 3_600_000)),
  ];
  command.optionsGroup("Connection:");
  for (const option of options) command.addOption(inDetail(option));
  return command;
}
