/**
 * Whether a host is this machine, by its name or number alone. A resolver's answer could change later. IPv6 without
 * brackets.
 */
export function isLoopback(host: string): boolean {
  const name = host.toLowerCase().replace(/\.$/, "");
  const [, mapped] = /^::ffff:([\d.]+)$/.exec(name) ?? [];
  const dotted = mapped ?? name;
  if (/^127(\.(25[0-5]|2[0-4]\d|1?\d?\d)){3}$/.test(dotted)) return true;
  return name === "::1" || name === "0:0:0:0:0:0:0:1" || name === "localhost";
}
