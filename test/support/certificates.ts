import { createPublicKey, generateKeyPairSync, type KeyObject, randomBytes, sign } from "node:crypto";

// Written by hand, byte by byte: no library writes the certificates that the server must reject.

/** A certificate and its private key, as PEM. */
export interface CertificatePair {
  readonly cert: string;
  readonly key: string;
}

export interface Names {
  readonly uris?: readonly string[];
  readonly dnsNames?: readonly string[];
  readonly emails?: readonly string[];
  /** IPv4 addresses. */
  readonly addresses?: readonly string[];
}

export interface CertificateOptions {
  readonly names?: Names;
  /** Instead of `names`: the extension's raw DER; more than once for a list. */
  readonly rawNames?: Uint8Array | readonly Uint8Array[];
  /** The permitted uses of the certificate; by default both ends of a connection. */
  readonly usage?: "client" | "server" | "both";
  /** Default: from an hour ago to an hour from now. */
  readonly notBefore?: Date;
  readonly notAfter?: Date;
}

/** A certificate authority of a test. */
export interface Authority {
  readonly cert: string;
  issue(options?: CertificateOptions): CertificatePair;
}

/** The names of a server on this machine. */
export const LOCAL_NAMES: Names = { dnsNames: ["localhost"], addresses: ["127.0.0.1"] };

const HOUR_MS = 3_600_000;

/** A DER element: its tag, its length, and its contents, one after the other. */
export function der(tag: number, ...contents: readonly (Uint8Array | string)[]): Buffer {
  const content = Buffer.concat(contents.map((part) => Buffer.from(part)));
  const length: number[] = [];
  for (let rest = content.length; rest > 0; rest >>= 8) length.unshift(rest & 0xff);
  const head = content.length < 0x80 ? [content.length] : [0x80 | length.length, ...length];
  return Buffer.concat([Buffer.from([tag, ...head]), content]);
}

const SEQUENCE = 0x30;
const sequence = (...contents: readonly Uint8Array[]): Buffer => der(SEQUENCE, ...contents);
const id = (hex: string): Buffer => der(0x06, Buffer.from(hex, "hex"));
const bits = (bytes: Uint8Array): Buffer => der(0x03, Buffer.from([0]), bytes);

const ECDSA_WITH_SHA256 = sequence(id("2a8648ce3d040302"));
const SUBJECT_ALT_NAME = "551d11";
const BASIC_CONSTRAINTS = "551d13";
const EXTENDED_KEY_USAGE = "551d25";
const SERVER_AUTH = "2b06010505070301";
const CLIENT_AUTH = "2b06010505070302";
const TRUE = der(0x01, Buffer.from([0xff]));

export function createAuthority(name = "test authority"): Authority {
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const issuer = named(name);
  const self = certificate({
    issuer,
    subject: issuer,
    publicKey: createPublicKey(privateKey),
    signingKey: privateKey,
    extensions: [sequence(id(BASIC_CONSTRAINTS), TRUE, der(0x04, sequence(TRUE)))],
    notBefore: new Date(Date.now() - HOUR_MS),
    notAfter: new Date(Date.now() + 24 * HOUR_MS),
  });
  return {
    cert: self,
    issue: ({ names, rawNames, usage = "both", notBefore, notAfter } = {}) => {
      const own = generateKeyPairSync("ec", { namedCurve: "P-256" });
      const usages = [
        ...(usage === "client" ? [] : [id(SERVER_AUTH)]),
        ...(usage === "server" ? [] : [id(CLIENT_AUTH)]),
      ];
      const altNames = rawNames ?? (names === undefined ? [] : generalNames(names));
      return {
        cert: certificate({
          issuer,
          subject: named("test"),
          publicKey: own.publicKey,
          signingKey: privateKey,
          extensions: [
            sequence(id(EXTENDED_KEY_USAGE), der(0x04, sequence(...usages))),
            ...[altNames].flat().map((content) => sequence(id(SUBJECT_ALT_NAME), der(0x04, content))),
          ],
          notBefore: notBefore ?? new Date(Date.now() - HOUR_MS),
          notAfter: notAfter ?? new Date(Date.now() + HOUR_MS),
        }),
        key: own.privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
      };
    },
  };
}

interface Parts {
  readonly issuer: Buffer;
  readonly subject: Buffer;
  readonly publicKey: KeyObject;
  readonly signingKey: KeyObject;
  readonly extensions: readonly Buffer[];
  readonly notBefore: Date;
  readonly notAfter: Date;
}

/** RFC 5280, 4.1. */
function certificate(parts: Parts): string {
  const serial = randomBytes(8);
  serial.writeUInt8((serial.readUInt8(0) & 0x7f) | 0x40, 0);
  const toBeSigned = sequence(
    der(0xa0, der(0x02, Buffer.from([2]))),
    der(0x02, serial),
    ECDSA_WITH_SHA256,
    parts.issuer,
    sequence(time(parts.notBefore), time(parts.notAfter)),
    parts.subject,
    parts.publicKey.export({ type: "spki", format: "der" }),
    der(0xa3, sequence(...parts.extensions)),
  );
  const signed = sequence(toBeSigned, ECDSA_WITH_SHA256, bits(sign("sha256", toBeSigned, parts.signingKey)));
  return `-----BEGIN CERTIFICATE-----\n${signed.toString("base64").replaceAll(/.{1,64}/g, "$&\n")}-----END CERTIFICATE-----\n`;
}

function named(commonName: string): Buffer {
  return sequence(der(0x31, sequence(id("550403"), der(0x0c, commonName))));
}

function time(at: Date): Buffer {
  return der(0x18, `${at.toISOString().replaceAll(/[-:T]|\.\d+/g, "")}`);
}

function generalNames({ uris = [], dnsNames = [], emails = [], addresses = [] }: Names): Buffer {
  return sequence(
    ...emails.map((name) => der(0x81, name)),
    ...dnsNames.map((name) => der(0x82, name)),
    ...uris.map((name) => der(0x86, name)),
    ...addresses.map((address) => der(0x87, Buffer.from(address.split(".").map(Number)))),
  );
}
