const LONGEST_HEADER = 128;
const MOST_ITEMS = 120;
const MOST_KEYS = 200;

/** The result of a task; undefined if it throws, as getters and proxies may. */
export function attempt<T>(task: () => T): T | undefined {
  try {
    return task();
  } catch {
    return undefined;
  }
}

/** The value of a property; undefined if reading it throws. */
export function read(value: object, key: string): unknown {
  return attempt((): unknown => Reflect.get(value, key));
}

/** The first own keys; none if the value does not list them. */
export function keysOf(value: object): string[] {
  return attempt(() => Object.keys(value).slice(0, MOST_KEYS)) ?? [];
}

/** The first items of a list; undefined for other values. */
export function itemsOf(value: object): unknown[] | undefined {
  return attempt(() => (Array.isArray(value) ? value.slice(0, MOST_ITEMS) : undefined));
}

/** A header by its name in lower case; undefined if it is missing or longer than 128 characters. */
export function headerOf(headers: unknown, name: string): string | undefined {
  if (typeof headers !== "object" || headers === null) return undefined;
  // A proxy of Headers is no Headers to its methods.
  const value = attempt(() => (headers instanceof Headers ? headers.get(name) : plainHeader(headers, name)));
  if (typeof value === "number") return String(value);
  return typeof value === "string" && value.length <= LONGEST_HEADER ? value.trim() : undefined;
}

/** Node returns repeated headers as lists. Others keep the case of names, or have a `get` of their own. */
function plainHeader(headers: object, name: string): unknown {
  let value = read(headers, name);
  if (value === undefined) {
    const key = keysOf(headers).find((one) => one.toLowerCase() === name);
    if (key !== undefined) value = read(headers, key);
  }
  if (value === undefined) {
    const get = read(headers, "get");
    if (typeof get === "function") value = attempt(() => Reflect.apply(get, headers, [name]));
  }
  return Array.isArray(value) ? value[0] : value;
}
