/** What a certificate says of its holder's names, in its extension subjectAltName (RFC 5280, 4.2.1.6). */
export interface SubjectAltNames {
  readonly uris: readonly string[];
  readonly dnsNames: readonly string[];
}

const SEQUENCE = 0x30;
const OBJECT_IDENTIFIER = 0x06;
const BOOLEAN = 0x01;
const OCTET_STRING = 0x04;
/** `[3]`, constructed: the extensions of a certificate. */
const EXTENSIONS = 0xa3;
/** `[2]` and `[6]` of a GeneralName, primitive. */
const DNS_NAME = 0x82;
const URI = 0x86;

/** 2.5.29.17 */
const SUBJECT_ALT_NAME = Buffer.from([0x55, 0x1d, 0x11]);

/**
 * Reads the names from a certificate's DER. Node offers them as one text with commas, in which a name may hold a comma
 * of its own: whoever split it took one name for two. Here each name is what its length says.
 *
 * Names of other kinds are passed over. Undefined where the DER is broken, the extension is there twice, or a DNS name or
 * URI is empty or holds anything but visible ASCII: of such a certificate nothing is believed.
 */
export function subjectAltNames(der: Uint8Array): SubjectAltNames | undefined {
  try {
    return namesIn(der);
  } catch (error) {
    if (error instanceof BrokenDer) return undefined;
    throw error;
  }
}

class BrokenDer extends Error {}

interface Element {
  readonly tag: number;
  readonly content: Uint8Array;
}

function namesIn(der: Uint8Array): SubjectAltNames {
  const [certificate] = exactly(der, 1);
  const [tbs] = elements(expect(certificate, SEQUENCE));
  const extensions = elements(expect(tbs, SEQUENCE)).filter(({ tag }) => tag === EXTENSIONS);
  if (extensions.length > 1) throw new BrokenDer();
  const [wrapped] = extensions;
  if (wrapped === undefined) return { uris: [], dnsNames: [] };
  const [list] = exactly(wrapped.content, 1);
  const found = elements(expect(list, SEQUENCE))
    .map((extension) => elements(expect(extension, SEQUENCE)))
    .filter(([id]) => SUBJECT_ALT_NAME.equals(expect(id, OBJECT_IDENTIFIER)));
  if (found.length > 1) throw new BrokenDer();
  const [extension] = found;
  if (extension === undefined) return { uris: [], dnsNames: [] };
  const [, ...rest] = extension;
  const [value, ...others] = rest[0]?.tag === BOOLEAN ? rest.slice(1) : rest;
  if (others.length > 0) throw new BrokenDer();
  const [names] = exactly(expect(value, OCTET_STRING), 1);
  const all = elements(expect(names, SEQUENCE));
  const texts = (tag: number): string[] => all.filter((name) => name.tag === tag).map(({ content }) => text(content));
  return { uris: texts(URI), dnsNames: texts(DNS_NAME) };
}

function text(bytes: Uint8Array): string {
  if (bytes.length === 0 || bytes.some((byte) => byte <= 0x20 || byte >= 0x7f)) throw new BrokenDer();
  return Buffer.from(bytes).toString("latin1");
}

function expect(element: Element | undefined, tag: number): Uint8Array {
  if (element === undefined || element.tag !== tag) throw new BrokenDer();
  return element.content;
}

function exactly(der: Uint8Array, count: number): Element[] {
  const found = elements(der);
  if (found.length !== count) throw new BrokenDer();
  return found;
}

/** The elements that follow each other in `der`, all of it. Lengths are definite and as short as they can be, as DER has it. */
function elements(der: Uint8Array): Element[] {
  const found: Element[] = [];
  let at = 0;
  const next = (): number => {
    const byte = der[at];
    if (byte === undefined) throw new BrokenDer();
    at += 1;
    return byte;
  };
  while (at < der.length) {
    const tag = next();
    // Tags of several bytes do not occur in certificates.
    if ((tag & 0x1f) === 0x1f) throw new BrokenDer();
    let length = next();
    if (length >= 0x80) {
      const bytes = length & 0x7f;
      if (bytes === 0 || bytes > 3) throw new BrokenDer();
      length = 0;
      for (let index = 0; index < bytes; index += 1) length = length * 256 + next();
      if (length < 0x80 || length < 256 ** (bytes - 1)) throw new BrokenDer();
    }
    if (at + length > der.length) throw new BrokenDer();
    found.push({ tag, content: der.subarray(at, at + length) });
    at += length;
  }
  return found;
}
