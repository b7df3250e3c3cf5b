import { readFile } from "node:fs/promises";
import { type Credentials, type Grant, type Principal, ROLES, type Role } from "../domain/principal.ts";
import { AccessError } from "./access-error.ts";

/** Principals by a name in the certificate: `uri:spiffe://…`, `dns:billing.internal`. */
export type CertificatePrincipals = ReadonlyMap<string, Principal>;

type Fields = Readonly<Record<string, unknown>>;

/**
 * Reads the file that maps certificates to principals: a list of `{"uri": …}` or `{"dns_name": …}` with `principal`,
 * `role`, and for agents `agent_ids` or `claw_identifier`.
 *
 * @throws AccessError with the entry at fault and the reason
 */
export async function readCertificatePrincipals(path: string): Promise<CertificatePrincipals> {
  let entries: unknown;
  try {
    entries = JSON.parse(await readFile(path, "utf8"));
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new AccessError(`HARBORFORGE_CERTIFICATE_PRINCIPALS: the file ${path} is not readable: ${why}.`, {
      cause: error,
    });
  }
  const principals = new Map<string, Principal>();
  if (!Array.isArray(entries)) throw fault(path, "it must be a list");
  for (const [index, entry] of entries.entries()) {
    if (typeof entry !== "object" || entry === null) throw fault(path, `entry ${index + 1} must be an object`);
    const [key, principal] = parseEntry(entry, (why) => fault(path, `entry ${index + 1}: ${why}`));
    if (principals.has(key)) throw fault(path, `entry ${index + 1} repeats ${key}`);
    principals.set(key, principal);
  }
  return principals;
}

const KNOWN = new Set(["uri", "dns_name", "principal", "role", "agent_ids", "claw_identifier"]);

function parseEntry(entry: Fields, faultOf: (why: string) => AccessError): [string, Principal] {
  const unknownField = Object.keys(entry).find((key) => !KNOWN.has(key));
  if (unknownField !== undefined) throw faultOf(`the field ${JSON.stringify(unknownField)} is unknown`);
  const { uri, dns_name: dnsName, principal: name, role } = entry;
  if ((uri === undefined) === (dnsName === undefined)) throw faultOf("it must have either uri or dns_name");
  const key = uri === undefined ? dnsName : uri;
  if (typeof key !== "string" || key === "") throw faultOf("uri or dns_name must be text");
  if (uri === undefined && key.includes("*")) throw faultOf("dns_name must be one name, without a wildcard");
  if (!isName(name)) throw faultOf("principal must be text of 1 to 128 characters");
  const known = ROLES.find((one) => one === role);
  if (known === undefined) throw faultOf(`role must be one of ${ROLES.join(", ")}`);
  const credential = uri === undefined ? `dns:${key.toLowerCase()}` : `uri:${key}`;
  return [credential, { ...parseGrant(known, entry, faultOf), name, credential, expiresAt: undefined }];
}

function parseGrant(role: Role, entry: Fields, faultOf: (why: string) => AccessError): Grant {
  const { agent_ids: agentIds, claw_identifier: claw } = entry;
  if (role !== "agent") {
    if (agentIds !== undefined || claw !== undefined)
      throw faultOf("agent_ids and claw_identifier are only for the role agent");
    return { role };
  }
  if ((agentIds === undefined) === (claw === undefined)) {
    throw faultOf("an agent must have either agent_ids or claw_identifier");
  }
  if (claw !== undefined) {
    if (!isName(claw)) throw faultOf("claw_identifier must be text of 1 to 128 characters");
    return { role, scope: { kind: "claw", clawIdentifier: claw } };
  }
  if (!Array.isArray(agentIds) || agentIds.length === 0 || agentIds.length > 1_000 || !agentIds.every(isName)) {
    throw faultOf("agent_ids must be a list of 1 to 1000 names of 1 to 128 characters");
  }
  return { role, scope: { kind: "agents", agentIds: new Set(agentIds) } };
}

function isName(value: unknown): value is string {
  return typeof value === "string" && value !== "" && Array.from(value).length <= 128 && !/\p{Cc}/u.test(value);
}

const SPIFFE = /^spiffe:/i;

/**
 * The principal of the peer. URI names identify workloads, so they come before DNS names. A certificate with a SPIFFE
 * URI and another URI has no principal: SPIFFE allows exactly one URI in a certificate (X.509-SVID, 2).
 */
export function principalOfPeer(
  principals: CertificatePrincipals,
  peer: Pick<NonNullable<Credentials["peer"]>, "uris" | "dnsNames"> | undefined,
): Principal | undefined {
  const uris = peer?.uris ?? [];
  if (uris.length > 1 && uris.some((uri) => SPIFFE.test(uri))) return undefined;
  for (const uri of uris) {
    const found = principals.get(`uri:${uri}`);
    if (found !== undefined) return found;
  }
  for (const name of peer?.dnsNames ?? []) {
    const found = principals.get(`dns:${name.toLowerCase()}`);
    if (found !== undefined) return found;
  }
  return undefined;
}

function fault(path: string, why: string): AccessError {
  return new AccessError(`HARBORFORGE_CERTIFICATE_PRINCIPALS: the file ${path} is not usable: ${why}.`);
}
