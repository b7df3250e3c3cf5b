/** The URL meant by `http://host:port`, `https://host:port` or `host:port`. Undefined for what names no such place. */
export function baseUrlOf(address: string): string | undefined {
  const url = URL.parse(/^[a-z]+:\/\//i.test(address) ? address : `http://${address}`);
  if (url === null || (url.protocol !== "http:" && url.protocol !== "https:")) return undefined;
  const plain = url.username === "" && url.password === "" && url.search === "" && url.hash === "";
  return plain && url.pathname === "/" ? url.origin : undefined;
}
