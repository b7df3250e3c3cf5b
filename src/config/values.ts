import { isIPv4, isIPv6 } from "node:net";

/** An address to listen on. IPv6 addresses are without brackets. Port 0 takes a free port. */
export interface Address {
  readonly host: string;
  readonly port: number;
}

const UNITS = [
  ["h", 3_600_000],
  ["m", 60_000],
  ["s", 1_000],
  ["ms", 1],
] as const;

/**
 * A duration in milliseconds from text such as `500ms`, `10s`, `1m30s`, `2h`: whole numbers, each unit at most once,
 * larger units first. A number without a unit is rejected, since its meaning is unclear. Undefined for other text.
 */
export function parseDuration(text: string): number | undefined {
  const parts = /^(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?(?:(\d{1,9})ms)?$/.exec(text);
  if (parts === null || text === "") return undefined;
  return UNITS.reduce((total, [, unitMs], index) => total + Number(parts[index + 1] ?? 0) * unitMs, 0);
}

/** The shortest text that `parseDuration` reads as this number of milliseconds. */
export function formatDuration(ms: number): string {
  if (ms === 0) return "0s";
  let rest = ms;
  let text = "";
  for (const [unit, unitMs] of UNITS) {
    const count = Math.floor(rest / unitMs);
    rest -= count * unitMs;
    if (count > 0) text += `${count}${unit}`;
  }
  return text;
}

/** `host:port`, `[::1]:port`; port 0 to 65535. Undefined for other text. */
export function parseAddress(text: string): Address | undefined {
  const parts = /^(?:\[([^[\]]+)\]|([^[\]:]+)):(\d{1,5})$/.exec(text);
  if (parts === null) return undefined;
  const [, bracketed, plain, digits] = parts;
  const port = Number(digits);
  if (port > 65_535) return undefined;
  if (bracketed !== undefined) return isIPv6(bracketed) ? { host: bracketed, port } : undefined;
  return plain !== undefined && isHost(plain) ? { host: plain, port } : undefined;
}

/** The reverse of `parseAddress`: IPv6 addresses in brackets, as in URLs. */
export function formatAddress({ host, port }: Address): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

function isHost(text: string): boolean {
  // Text that looks like an IPv4 address must be one: resolvers read 127.1 differently.
  if (/^[\d.]+$/.test(text)) return isIPv4(text);
  const labels = text.replace(/\.$/, "").split(".");
  return (
    text.length <= 253 && labels.every((label) => /^[\p{L}\p{N}_](?:[\p{L}\p{N}_-]{0,61}[\p{L}\p{N}_])?$/u.test(label))
  );
}

/**
 * Whether a text is a `postgres://` or `postgresql://` URL. Commas may separate several hosts, or the parameters name
 * them.
 */
export function isDatabaseUrl(text: string): boolean {
  const parts = partsOf(text);
  if (parts === undefined) return false;
  try {
    decodeURIComponent(text);
  } catch {
    return false;
  }
  return parts.hosts.every((host) => {
    const port = /^(?:\[[\da-f:.]+\]|[^:[\]]*)(?::(\d{1,5}))?$/i.exec(host);
    return port !== null && (port[1] === undefined || (Number(port[1]) > 0 && Number(port[1]) <= 65_535));
  });
}

/** The parts of a database URL that may be shown: hosts and name, without user, password and parameters. */
export function databaseLabel(url: string): string {
  const { hosts, path } = partsOf(url) ?? { hosts: [], path: "" };
  return `${hosts.join(",")}${path}`;
}

function partsOf(url: string): { readonly hosts: readonly string[]; readonly path: string } | undefined {
  const parts = /^postgres(?:ql)?:\/\/([^/?#\s\p{Cc}]*)(\/[^?#\s\p{Cc}]*)?(?:[?#][^\s\p{Cc}]*)?$/u.exec(url);
  if (parts === null) return undefined;
  const [, authority = "", path = ""] = parts;
  // A password may contain an @ that is not encoded. The last one separates.
  return { hosts: authority.slice(authority.lastIndexOf("@") + 1).split(","), path };
}
