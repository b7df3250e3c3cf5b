import { type Command, InvalidArgumentError, Option } from "commander";
import { baseUrlOf } from "harborforge-agents-client/internal";
import { durationArgument } from "../arguments.ts";
import { CommandFailure } from "../call-failure.ts";
import { EXIT_WRONG_SETTING } from "../exit-codes.ts";
import { type Profile, profileFile, readNamedFile, readProfile, readSecretFile } from "./profile.ts";

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

/** The settings of a connection to the service. */
export interface Connection {
  /** The URL of its gRPC listener. */
  readonly address: string;
  readonly token: string | undefined;
  /** Certificate authorities in PEM, besides those of Node. */
  readonly ca: string | undefined;
  /** The client certificate and its private key, in PEM. */
  readonly identity: { readonly cert: string; readonly key: string } | undefined;
  readonly timeoutMs: number;
}

const DEFAULT_ADDRESS = "http://127.0.0.1:50051";
const DEFAULT_TIMEOUT_MS = 10_000;

/** Adds the flags of `ConnectionFlags` to a command. */
export function addConnectionOptions(command: Command): Command {
  return command
    .optionsGroup("Connection:")
    .addOption(
      new Option(
        "--address <url>",
        `the service's gRPC listener: http://host:port, https://host:port or host:port (default: ${DEFAULT_ADDRESS}; env: HARBORFORGE_ADDRESS)`,
      ).argParser(readAddress),
    )
    .option(
      "--token <token>",
      "an API token; visible in the process list, so prefer --token-file (env: HARBORFORGE_TOKEN)",
    )
    .option("--token-file <path>", "a file with the token, not readable by others (env: HARBORFORGE_TOKEN_FILE)")
    .option("--ca <path>", "certificate authorities of the service, PEM (env: HARBORFORGE_CA)")
    .option("--cert <path>", "a client certificate, PEM; needs --key (env: HARBORFORGE_CERT)")
    .option("--key <path>", "its private key, not readable by others (env: HARBORFORGE_KEY)")
    .option("--profile <name>", "use address and credentials of this profile (env: HARBORFORGE_PROFILE)")
    .addOption(
      new Option("--timeout <time>", "the timeout of a call, such as 500ms or 1m")
        .default(DEFAULT_TIMEOUT_MS, "10s")
        .argParser(durationArgument(1, 3_600_000)),
    );
}

/**
 * Reads the settings from the flags, then the environment, then the profile. A profile's credentials are only sent to
 * the profile's own address, or if the profile was named explicitly.
 *
 * @throws CommandFailure
 */
export function readConnection(flags: ConnectionFlags, env: Readonly<Record<string, string | undefined>>): Connection {
  const requested = flags.profile ?? set(env.HARBORFORGE_PROFILE);
  const profile = readProfile(profileFile(env), requested);
  const given = flags.address ?? set(env.HARBORFORGE_ADDRESS);
  const address = baseUrlOf(given ?? profile?.address ?? DEFAULT_ADDRESS);
  if (address === undefined) {
    const where = given === undefined ? "The profile's address" : "HARBORFORGE_ADDRESS";
    throw wrong(`${where} must be http://host:port, https://host:port or host:port.`);
  }
  const trusted = given === undefined || flags.profile !== undefined ? profile : undefined;
  const caFile = flags.ca ?? set(env.HARBORFORGE_CA) ?? trusted?.ca;
  return {
    address,
    token: tokenOf(flags, env, trusted),
    ca: caFile === undefined ? undefined : readNamedFile(caFile),
    identity: identityOf(flags.cert ?? set(env.HARBORFORGE_CERT), flags.key ?? set(env.HARBORFORGE_KEY), trusted),
    timeoutMs: flags.timeout,
  };
}

function tokenOf(
  flags: ConnectionFlags,
  env: Readonly<Record<string, string | undefined>>,
  profile: { readonly token: string | undefined; readonly tokenFile: string | undefined } | undefined,
): string | undefined {
  const sources = [
    { token: flags.token, tokenFile: flags.tokenFile },
    { token: set(env.HARBORFORGE_TOKEN), tokenFile: set(env.HARBORFORGE_TOKEN_FILE) },
    profile ?? { token: undefined, tokenFile: undefined },
  ];
  const source = sources.find(({ token, tokenFile }) => token !== undefined || tokenFile !== undefined);
  if (source === undefined) return undefined;
  const token = source.token ?? (source.tokenFile === undefined ? "" : readSecretFile(source.tokenFile, "token"));
  // The token becomes a header. Other characters would be invalid, or begin another header.
  if (/^[\x21-\x7e]+$/.test(token)) return token;
  throw wrong("The token must be printable ASCII without spaces.");
}

function identityOf(
  cert: string | undefined,
  key: string | undefined,
  profile: Pick<Profile, "cert" | "key"> | undefined,
): Connection["identity"] {
  const files = cert === undefined && key === undefined ? { cert: profile?.cert, key: profile?.key } : { cert, key };
  if (files.cert === undefined && files.key === undefined) return undefined;
  if (files.cert === undefined || files.key === undefined) {
    throw wrong("--cert and --key must be used together.");
  }
  return { cert: readNamedFile(files.cert), key: readSecretFile(files.key, "private key") };
}

/** Whether a token would be sent unencrypted to another machine. */
export function sendsTokenInCleartext({ address, token }: Connection): boolean {
  const { protocol, hostname } = new URL(address);
  const isLoopback = hostname === "localhost" || hostname === "[::1]" || /^127(\.\d+){3}$/.test(hostname);
  return token !== undefined && protocol === "http:" && !isLoopback;
}

function readAddress(text: string): string {
  const url = baseUrlOf(text);
  if (url === undefined) throw new InvalidArgumentError("It must be http://host:port, https://host:port or host:port.");
  return url;
}

function set(value: string | undefined): string | undefined {
  return value === "" ? undefined : value;
}

function wrong(sentence: string): CommandFailure {
  return new CommandFailure(sentence, EXIT_WRONG_SETTING);
}
