import { X509Certificate } from "node:crypto";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { subjectAltNames } from "../../src/rpc/callers/subject-alt-names.ts";
import { type CertificateOptions, createAuthority, der } from "../support/certificates.ts";

const authority = createAuthority();

function namesOf(options: CertificateOptions) {
  const { cert } = authority.issue(options);
  return subjectAltNames(new X509Certificate(cert).raw);
}

describe("the names in a certificate", () => {
  test("are read unchanged, and other kinds are skipped", () => {
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

  test("are empty without such an extension", () => {
    expect(namesOf({})).toEqual({ uris: [], dnsNames: [] });
  });

  test("stay one name when it contains the text of another", () => {
    const one = "spiffe://example.org/a,URI:spiffe://example.org/admin";
    const rawNames = der(0x30, der(0x86, one));
    expect(namesOf({ rawNames })).toEqual({ uris: [one], dnsNames: [] });
  });

  test.each([
    ["a NUL", der(0x30, der(0x82, "admin.example.org\0.evil.example"))],
    ["a space", der(0x30, der(0x86, "spiffe://example.org/a, DNS:admin"))],
    ["a letter beyond ASCII", der(0x30, der(0x86, "spiffe://example.org/ä"))],
    ["nothing", der(0x30, der(0x86, ""))],
    ["a length beyond the end", Buffer.from([0x30, 0x05, 0x86, 0x7f, 0x61, 0x62, 0x63])],
    ["a length longer than it need be", Buffer.from([0x30, 0x81, 0x03, 0x86, 0x01, 0x61])],
    ["bytes behind the list", Buffer.concat([der(0x30, der(0x86, "a")), Buffer.from([0x05, 0x00])])],
  ])("are rejected with %s", (_what, rawNames) => {
    expect(namesOf({ rawNames })).toBeUndefined();
  });

  test("are undefined, or names of visible ASCII, whatever the bytes are", () => {
    const { cert } = authority.issue({ names: { uris: ["spiffe://example.org/claw/7"] } });
    const bytes = new X509Certificate(cert).raw;
    fc.assert(
      fc.property(fc.nat(bytes.length - 1), fc.nat(255), fc.nat(bytes.length), (at, byte, end) => {
        const damaged = Buffer.from(bytes.subarray(0, Math.max(end, at + 1)));
        damaged[at] = byte;
        const found = subjectAltNames(damaged);
        for (const name of [...(found?.uris ?? []), ...(found?.dnsNames ?? [])]) expect(name).toMatch(/^[\x21-\x7e]+$/);
      }),
      { numRuns: 2_000 },
    );
  });
});
