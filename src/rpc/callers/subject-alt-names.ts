import type { X509Certificate } from "node:crypto";

/** The names of a certificate's holder, from its extension subjectAltName (RFC 5280, 4.2.1.6). */
export interface SubjectAltNames {
  readonly uris: readonly string[];
  readonly dnsNames: readonly string[];
}

/**
 * Reads the names of a certificate that was verified. OpenSSL rejects a certificate whose names are broken, or that has the
 * extension twice, when it verifies it. Names of other kinds are left out.
 *
 * @returns undefined if a DNS name or URI is empty or holds anything but visible ASCII: none of the names counts then
 */
export function subjectAltNames({ subjectAltName }: X509Certificate): SubjectAltNames | undefined {
  const uris: string[] = [];
  const dnsNames: string[] = [];
  // Node puts a name that holds a comma or a quote into a JSON string, with the comma escaped: no ", " is part of a name.
  for (const entry of subjectAltName?.split(", ") ?? []) {
    const [, kind, text = ""] = /^(URI|DNS):(.*)$/s.exec(entry) ?? [];
    if (kind === undefined) continue;
    const name = text.startsWith('"') ? unquoted(text) : text;
    if (!/^[\x21-\x7e]+$/.test(name)) return undefined;
    (kind === "URI" ? uris : dnsNames).push(name);
  }
  return { uris, dnsNames };
}

/** Empty for what is not a JSON string, which no version of Node writes. */
function unquoted(text: string): string {
  try {
    return String(JSON.parse(text));
  } catch {
    return "";
  }
}
