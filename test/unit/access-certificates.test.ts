import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { AccessError } from "../../src/access/access-error.ts";
import { principalOfPeer, readCertificatePrincipals } from "../../src/access/certificate-principals.ts";
import { temporaryFolder } from "../support/owned-process.ts";

async function fileOf(text: string): Promise<string> {
  const folder = await temporaryFolder("certificates");
  onTestFinished(() => rm(folder, { recursive: true }));
  const file = join(folder, "principals.json");
  await writeFile(file, text);
  return file;
}

const ENTRIES = [
  { uri: "spiffe://example.org/claw/7", principal: "claw-7", role: "agent", claw_identifier: "claw-7" },
  { dns_name: "Billing.internal", principal: "billing", role: "service" },
  { uri: "spiffe://example.org/scribe", principal: "scribe", role: "agent", agent_ids: ["scribe-1"] },
];

test("maps a certificate to its principal in the file, by URI before DNS names", async () => {
  const principals = await readCertificatePrincipals(await fileOf(JSON.stringify(ENTRIES)));
  const of = (uris: string[], dnsNames: string[]) => principalOfPeer(principals, { uris, dnsNames })?.name;
  expect(of(["spiffe://example.org/claw/7"], ["billing.internal"])).toBe("claw-7");
  expect(of(["spiffe://example.org/other"], ["BILLING.internal"])).toBe("billing");
  expect(of(["spiffe://example.org/CLAW/7"], [])).toBeUndefined();
  expect(of(["billing.internal"], ["spiffe://example.org/claw/7", "*.internal"])).toBeUndefined();
  expect(principalOfPeer(principals, undefined)).toBeUndefined();
  const scribe = principalOfPeer(principals, { uris: ["spiffe://example.org/scribe"], dnsNames: [] });
  expect(scribe).toEqual({
    name: "scribe",
    role: "agent",
    scope: { kind: "agents", agentIds: new Set(["scribe-1"]) },
    credential: "uri:spiffe://example.org/scribe",
    expiresAt: undefined,
  });
});

test("rejects a certificate with a SPIFFE name and another URI, whatever other names it has", async () => {
  const principals = await readCertificatePrincipals(await fileOf(JSON.stringify(ENTRIES)));
  const of = (...uris: string[]) => principalOfPeer(principals, { uris, dnsNames: ["billing.internal"] })?.name;
  expect(of("spiffe://example.org/claw/7", "spiffe://example.org/scribe")).toBeUndefined();
  expect(of("https://example.org/", "SPIFFE://example.org/scribe")).toBeUndefined();
  expect(of("spiffe://example.org/scribe", "spiffe://example.org/scribe")).toBeUndefined();
  expect(of("https://example.org/a", "https://example.org/b")).toBe("billing");
});

test.each<[string, unknown, string]>([
  ["no list", {}, "it must be a list"],
  ["no object", [7], "entry 1 must be an object"],
  ["neither name", [{ principal: "x", role: "admin" }], "either uri or dns_name"],
  ["both names", [{ uri: "a:b", dns_name: "b", principal: "x", role: "admin" }], "either uri or dns_name"],
  ["a wildcard", [{ dns_name: "*.internal", principal: "x", role: "admin" }], "without a wildcard"],
  ["no role", [{ uri: "a:b", principal: "x" }], "role must be one of"],
  ["no principal", [{ uri: "a:b", role: "admin" }], "principal must be text"],
  ["an agent of nothing", [{ uri: "a:b", principal: "x", role: "agent" }], "either agent_ids or claw_identifier"],
  [
    "an admin of a claw",
    [{ uri: "a:b", principal: "x", role: "admin", claw_identifier: "c" }],
    "only for the role agent",
  ],
  [
    "a field that there is not",
    [{ uri: "a:b", principal: "x", role: "admin", claw: "c" }],
    'the field "claw" is unknown',
  ],
  [
    "one name twice",
    [ENTRIES[1], { ...ENTRIES[1], dns_name: "billing.INTERNAL" }],
    "entry 2 repeats dns:billing.internal",
  ],
])("rejects a file with %s, and names the file", async (_, content, why) => {
  const file = await fileOf(JSON.stringify(content));
  const error = await readCertificatePrincipals(file).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(AccessError);
  expect(String(error)).toContain(why);
  expect(String(error)).toContain(file);
});

test("rejects a missing file, and a file that is not JSON", async () => {
  await expect(readCertificatePrincipals("/nowhere/at/all.json")).rejects.toThrow("/nowhere/at/all.json");
  await expect(readCertificatePrincipals(await fileOf("{"))).rejects.toThrow("is not readable");
});
