import { baseUrlOf } from "harborforge-agents-client/internal/calls";
import { CommandFailure } from "../call-failure.ts";
import { EXIT_WRONG_SETTING } from "../exit-codes.ts";
import { type ConnectionFlags, DEFAULT_ADDRESS } from "./connection-options.ts";
import { type Profile, profileFile, readNamedFile, readProfile, readSecretFile } from "./profile.ts";

/** The settings of a connection to the service. */
export interface Connection {
  /** The URLs of its gRPC listeners, at least one. */
  readonly addresses: readonly string[];
  readonly token: string | undefined;
  /** Certificate authorities in PEM, besides those of Node. */
  readonly ca: string | undefined;
  /** The client certificate and its private key, in PEM. */
  readonly identity: { readonly cert: string; readonly key: string } | undefined;
  readonly timeoutMs: number;
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
  const addresses = addressesOf(given ?? profile?.address ?? DEFAULT_ADDRESS);
  if (addresses === undefined) {
    const inEnvironment = given === undefined ? "The profile's address" : "HARBORFORGE_ADDRESS";
    const where = flags.address === undefined ? inEnvironment : "--address";
    throw wrong(
      `${where} must be http://host:port, https://host:port or host:port, or several with commas between them.`,
    );
  }
  const trusted = given === undefined || flags.profile !== undefined ? profile : undefined;
  const caFile = flags.ca ?? set(env.HARBORFORGE_CA) ?? trusted?.ca;
  return {
    addresses,
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

/** The addresses to which a token would be sent unencrypted over a network. */
export function cleartextAddresses({ addresses, token }: Pick<Connection, "addresses" | "token">): readonly string[] {
  return token === undefined ? [] : addresses.filter((address) => !isSafe(new URL(address)));
}

function isSafe({ protocol, hostname }: URL): boolean {
  return protocol === "https:" || hostname === "localhost" || hostname === "[::1]" || /^127(\.\d+){3}$/.test(hostname);
}

/** The URLs of a list with commas, each once. Undefined if one of them is invalid. */
function addressesOf(text: string): readonly string[] | undefined {
  const urls = text.split(",").map((one) => baseUrlOf(one.trim()));
  const valid = urls.filter((url) => url !== undefined);
  return valid.length === urls.length ? [...new Set(valid)] : undefined;
}

function set(value: string | undefined): string | undefined {
  return value === "" ? undefined : value;
}

function wrong(sentence: string): CommandFailure {
  return new CommandFailure(sentence, EXIT_WRONG_SETTING);
}
