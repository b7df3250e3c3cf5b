import { X509Certificate } from "node:crypto";
import { once } from "node:events";
import { duplexPair } from "node:stream";
import { connect, createServer, type TLSSocket } from "node:tls";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { peerIdentityOf } from "../../src/rpc/callers/peer-identity.ts";
import { subjectAltNames } from "../../src/rpc/callers/subject-alt-names.ts";
import { type CertificateOptions, createAuthority, der, LOCAL_NAMES } from "../support/certificates.ts";

const authority = createAuthority();

function namesOf(options: CertificateOptions) {
  const { cert } = authority.issue(options);
  return subjectAltNames(new X509Certificate(cert));
}

const uri = (name: string) => der(0x86, name);
const dns = (name: string) => der(0x82, name);
const list = (...names: readonly Uint8Array[]) => der(0x30, ...names);

/** A name of the kind `otherName`: a Microsoft user principal name. */
const principalName = (name: string) =>
  der(0xa0, der(0x06, Buffer.from("2b060104018237140203", "hex")), der(0xa0, der(0x0c, name)));

/** A name of the kind `directoryName`: a common name. */
const directoryName = (name: string) =>
  der(0xa4, der(0x30, der(0x31, der(0x30, der(0x06, Buffer.from("550403", "hex")), der(0x0c, name)))));

describe("the names in a certificate", () => {
  test("are its URIs and DNS names, without those of other kinds", () => {
    expect(
      namesOf({
        names: {
          uris: ["spiffe://example.org/claw/7"],
          dnsNames: ["claw-7.example.org", "*.example.org"],
          emails: ["ada@example.org"],
          addresses: ["10.0.0.7"],
        },
      }),
    ).toEqual({ uris: ["spiffe://example.org/claw/7"], dnsNames: ["claw-7.example.org", "*.example.org"] });
  });

  test.each([
    ["there is no such extension", {}],
    ["the extension is empty", { rawNames: list() }],
  ])("are none if %s", (_, options) => {
    expect(namesOf(options)).toEqual({ uris: [], dnsNames: [] });
  });

  test.each([
    "spiffe://example.org/a,URI:spiffe://example.org/admin",
    'spiffe://example.org/a"',
    '"spiffe://example.org/a"',
    "spiffe://example.org/a\\u002c",
    "spiffe://example.org/'a'",
  ])("keep their commas, quotes and backslashes: %s", (name) => {
    expect(namesOf({ rawNames: list(uri(name), dns("b")) })).toEqual({ uris: [name], dnsNames: ["b"] });
  });

  test.each([
    ["an email address", der(0x81, "a, URI:spiffe://admin")],
    ["a user principal name", principalName("a, URI:spiffe://admin")],
    ["a directory name", directoryName("a, URI:spiffe://admin")],
    ["a directory name with a quote", directoryName('a", URI:spiffe://admin')],
  ])("do not come out of %s", (_, name) => {
    expect(namesOf({ rawNames: list(name, uri("spiffe://example.org/a")) })).toEqual({
      uris: ["spiffe://example.org/a"],
      dnsNames: [],
    });
  });

  test.each([
    ["a NUL", dns("admin.example.org\0.evil.example")],
    ["a space", uri("spiffe://example.org/a, DNS:admin")],
    ["a letter beyond ASCII", uri("spiffe://example.org/ä")],
    ["a line break", uri("spiffe://example.org/a\nURI:spiffe://admin")],
    ["nothing", uri("")],
  ])("are rejected as a whole if one holds %s", (_, name) => {
    expect(namesOf({ rawNames: list(uri("spiffe://example.org/a"), name) })).toBeUndefined();
  });

  test.each([
    ["a length longer than it need be", Buffer.from([0x30, 0x81, 0x03, 0x86, 0x01, 0x61])],
    ["bytes behind the list", Buffer.concat([list(uri("a")), Buffer.from([0x05, 0x00])])],
  ])("are those that OpenSSL reads if their encoding has %s", (_, rawNames) => {
    expect(namesOf({ rawNames })).toEqual({ uris: ["a"], dnsNames: [] });
  });

  test("are what was issued, whatever visible ASCII that is", () => {
    const name = fc.string({
      unit: fc.integer({ min: 0x21, max: 0x7e }).map((code) => String.fromCharCode(code)),
      minLength: 1,
      maxLength: 100,
    });
    fc.assert(
      fc.property(fc.array(name, { maxLength: 3 }), fc.array(name, { maxLength: 3 }), (uris, dnsNames) => {
        expect(namesOf({ rawNames: list(...uris.map(uri), ...dnsNames.map(dns)) })).toEqual({ uris, dnsNames });
      }),
      { numRuns: 200 },
    );
  });

  test("are undefined or visible ASCII, whatever bytes the certificate has", () => {
    const { cert } = authority.issue({ names: { uris: ["spiffe://example.org/claw/7"] } });
    const bytes = new X509Certificate(cert).raw;
    fc.assert(
      fc.property(fc.nat(bytes.length - 1), fc.nat(255), fc.nat(bytes.length), (at, byte, end) => {
        const damaged = Buffer.from(bytes.subarray(0, Math.max(end, at + 1)));
        damaged[at] = byte;
        const certificate = parsed(damaged);
        const found = certificate && subjectAltNames(certificate);
        for (const name of [...(found?.uris ?? []), ...(found?.dnsNames ?? [])]) expect(name).toMatch(/^[\x21-\x7e]+$/);
      }),
      { numRuns: 2_000 },
    );
  });
});

function parsed(der: Uint8Array): X509Certificate | undefined {
  try {
    return new X509Certificate(der);
  } catch {
    return undefined;
  }
}

/** What a server knows of a client that shows a certificate. */
async function identityOf(options: CertificateOptions) {
  const own = authority.issue({ names: LOCAL_NAMES });
  const server = createServer({ ...own, ca: authority.cert, requestCert: true, rejectUnauthorized: false });
  const secured = once(server, "secureConnection");
  const [near, far] = duplexPair();
  server.emit("connection", far);
  const client = connect({ socket: near, ca: authority.cert, ...authority.issue(options), servername: "localhost" });
  const [socket]: TLSSocket[] = await secured;
  const identity = socket && peerIdentityOf(socket);
  client.destroy();
  socket?.destroy();
  return identity;
}

describe("the identity of a client", () => {
  test("has the names of its certificate", async () => {
    expect(await identityOf({ names: { uris: ["spiffe://example.org/a"] } })).toMatchObject({
      uris: ["spiffe://example.org/a"],
      dnsNames: [],
    });
  });

  test.each<[string, CertificateOptions]>([
    ["the length of a name is beyond the end", { rawNames: Buffer.from([0x30, 0x05, 0x86, 0x7f, 0x61, 0x62, 0x63]) }],
    ["the extension is not a list", { rawNames: Buffer.from([0x05, 0x00]) }],
    ["the extension is there twice", { rawNames: [list(uri("spiffe://example.org/a")), list(uri("spiffe://admin"))] }],
    ["a name is empty", { rawNames: list(uri("")) }],
  ])("is unknown if %s", async (_, options) => {
    expect(await identityOf(options)).toBeUndefined();
  });
});
