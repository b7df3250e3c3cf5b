import { readFile } from "node:fs/promises";
import { type Credentials, type Grant, type Principal, ROLES, type Role } from "../domain/principal.ts";
import { AccessError } from "./access-error.ts";

/** Whom a certificate stands for, by a name in it: `uri:spiffe://…`, `dns:billing.internal`. */
export type CertificatePrincipals = ReadonlyMap<string, Principal>;

type Fields = Readonly<Record<string, unknown>>;

/**
 * Reads the file that says whom certificates stand for: a list of `{"uri": …}` or `{"dns_name": …}` with `principal`,
 * `role`, and for agents `agent_ids` or `claw_identifier`.
 *
 * @throws AccessError that says what is wrong with which entry
 */
export async function readCertificatePrincipals(path: string): Promise<CertificatePrincipals> {
  let entries: unknown;
  try {
    entries = JSON.parse(await readFile(path, "utf8"));
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new AccessError(`The file ${path} of HARBORFORGE_CERTIFICATE_PRINCIPALS cannot be read: ${why}.`, {
      cause: error,
    });
  }
  const principals = new Map<string, Principal>();
  if (!Array.isArray(entries)) throw fault(path, "it must be a list");
  for (const [index, entry] of entries.entries()) {
    if (typeof entry !== "object" || entry === null) throw fault(path, `entry ${index + 1} must be an object`);
    const [key, principal] = parseEntry(entry, (why) => fault(path, `entry ${index + 1}: ${why}`));
    if (principals.has(key)) throw fault(path, `entry ${index + 1} is about ${key}, as another one is`);
    principals.set(key, principal);
  }
  return principals;
}

const KNOWN = new Set(["uri", "dns_name", "principal", "role", "agent_ids", "claw_identifier"]);

function parseEntry(entry: Fields, refused: (why: string) => AccessError): [string, Principal] {
  const stranger = Object.keys(entry).find((key) => !KNOWN.has(key));
  if (stranger !== undefined) throw refused(`there is no field ${JSON.stringify(stranger)}`);
  const { uri, dns_name: dnsName, principal: name, role } = entry;
  if ((uri === undefined) === (dnsName === undefined)) throw refused("it must have either uri or dns_name");
  const key = uri === undefined ? dnsName : uri;
  if (typeof key !== "string" || key === "") throw refused("uri or dns_name must be text");
  if (uri === undefined && key.includes("*")) throw refused("dns_name must be one name: a wildcard stands for nobody");
  if (!isName(name)) throw refused("principal must be text of 1 to 128 characters");
  const known = ROLES.find((one) => one === role);
  if (known === undefined) throw refused(`role must be one of ${ROLES.join(", ")}`);
  const credential = uri === undefined ? `dns:${key.toLowerCase()}` : `uri:${key}`;
  return [credential, { ...parseGrant(known, entry, refused), name, credential, expiresAt: undefined }];
}

function parseGrant(role: Role, entry: Fields, refused: (why: string) => AccessError): Grant {
  const { agent_ids: agentIds, claw_identifier: claw } = entry;
  if (role !== "agent") {
    if (agentIds !== undefined || claw !== undefined)
      throw refused("agent_ids and claw_identifier are for agents alone");
    return { role };
  }
  if ((agentIds === undefined) === (claw === undefined)) {
    throw refused("an agent must have either agent_ids or claw_identifier");
  }
  if (claw !== undefined) {
    if (!isName(claw)) throw refused("claw_identifier must be text of 1 to 128 characters");
    return { role, scope: { kind: "claw", clawIdentifier: claw } };
  }
  if (!Array.isArray(agentIds) || agentIds.length === 0 || agentIds.length > 1_000 || !agentIds.every(isName)) {
    throw refused("agent_ids must be a list of 1 to 1000 texts of 1 to 128 characters");
  }
  return { role, scope: { kind: "agents", agentIds: new Set(agentIds) } };
}

function isName(value: unknown): value is string {
  return typeof value === "string" && value !== "" && Array.from(value).length <= 128 && !/\p{Cc}/u.test(value);
}

const SPIFFE = /^spiffe:/i;

/**
 * Whom the other end of a connection is; URI names, which are workloads' own, come before names of hosts. Nobody, where a workload
 * has more URIs than its own: SPIFFE allows exactly one in a certificate (X.509-SVID, 2), so that nobody can be two.
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
  return new AccessError(`The file ${path} of HARBORFORGE_CERTIFICATE_PRINCIPALS cannot be used: ${why}.`);
}
