/** A value that was read, and the place after it in the text. */
export interface LooseValue {
  readonly value: object;
  readonly end: number;
  /** Whether some key stands in quotes. Without any, it may be code. */
  readonly quoted: boolean;
}

const SPACE = /[\s,]/;
const BARE = /[\w.+-]/;
const BARE_KEY = /[\w$-]/;
const LONGEST_WORD = 32;
const WORDS: ReadonlyMap<string, boolean | null> = new Map([
  ["true", true],
  ["True", true],
  ["false", false],
  ["False", false],
  ["null", null],
  ["None", null],
  ["undefined", null],
]);
const ESCAPES: Readonly<Record<string, string>> = { n: "\n", r: "\r", t: "\t", b: "\b", f: "\f" };

/**
 * Reads the object or list that begins at a place in a text: JSON, and what Python, Node.js and Rust print for their values (single
 * quotes, `None`, keys without quotes).
 * The text may go on after it. A value that is cut off counts as far as it goes. It reads each character once.
 *
 * @param deepest the most levels of objects and lists; deeper ones are left out
 * @returns undefined if neither an object with a key nor a list of values begins there
 */
export function readLooseJson(text: string, begin: number, deepest: number): LooseValue | undefined {
  const reader = new LooseReader(text, begin, deepest);
  const value = reader.container();
  return value === undefined ? undefined : { value, end: reader.at, quoted: reader.quoted };
}

class LooseReader {
  at: number;
  quoted = false;
  readonly #text: string;
  #levels: number;

  constructor(text: string, begin: number, deepest: number) {
    this.#text = text;
    this.at = begin;
    this.#levels = deepest;
  }

  /** @returns undefined where no object or list begins; the reader then stands at any place */
  container(): object | undefined {
    const opening = this.#text[this.at];
    if (this.#levels <= 0 || (opening !== "{" && opening !== "[")) return undefined;
    this.#levels -= 1;
    this.at += 1;
    const read = opening === "{" ? this.#object() : this.#list();
    this.#levels += 1;
    return read;
  }

  #object(): object | undefined {
    // A key may be `__proto__`.
    const entries = new Map<string, unknown>();
    for (;;) {
      this.#skipSpace();
      if (this.#text[this.at] === "}") {
        this.at += 1;
        break;
      }
      const key = this.#key();
      if (key === undefined) break;
      this.#skipSpace();
      if (this.#text[this.at] !== ":") break;
      this.at += 1;
      const value = this.#value();
      if (value === undefined) break;
      entries.set(key, value);
    }
    return entries.size === 0 ? undefined : Object.fromEntries(entries);
  }

  #list(): object | undefined {
    const items: unknown[] = [];
    for (;;) {
      this.#skipSpace();
      if (this.#text[this.at] === "]") {
        this.at += 1;
        break;
      }
      const value = this.#value();
      if (value === undefined) break;
      items.push(value);
    }
    return items.length === 0 ? undefined : items;
  }

  /** @returns undefined where no value is */
  #value(): unknown {
    this.#skipSpace();
    const first = this.#text[this.at];
    if (first === "{" || first === "[") {
      // An empty one, or one that is too deep, ends what is around it, unless it closes at once.
      const closing = first === "{" ? "}" : "]";
      const container = this.container();
      if (container !== undefined) return container;
      return this.#text[this.at - 1] === closing ? null : undefined;
    }
    // Python prints bytes as b'…'.
    if (first === "b" && /["']/.test(this.#text.charAt(this.at + 1))) this.at += 1;
    const string = this.#string();
    if (string !== undefined) return string;
    const word = this.#word(BARE);
    const number = word === "" ? Number.NaN : Number(word);
    return Number.isNaN(number) ? WORDS.get(word) : number;
  }

  #key(): string | undefined {
    const string = this.#string();
    if (string !== undefined) {
      this.quoted = true;
      return string;
    }
    const word = this.#word(BARE_KEY);
    return word === "" ? undefined : word;
  }

  #word(characters: RegExp): string {
    const begin = this.at;
    while (this.at - begin < LONGEST_WORD && characters.test(this.#text.charAt(this.at))) this.at += 1;
    return this.#text.slice(begin, this.at);
  }

  #string(): string | undefined {
    const quote = this.#text[this.at];
    if (quote !== '"' && quote !== "'") return undefined;
    const parts: string[] = [];
    let from = this.at + 1;
    let to = from;
    for (; to < this.#text.length && this.#text[to] !== quote; to += 1) {
      if (this.#text[to] !== "\\") continue;
      parts.push(this.#text.slice(from, to));
      const escaped = this.#text.charAt(to + 1);
      const code = escaped === "u" ? /^[0-9a-fA-F]{4}/.exec(this.#text.slice(to + 2, to + 6))?.[0] : undefined;
      parts.push(code === undefined ? (ESCAPES[escaped] ?? escaped) : String.fromCharCode(Number.parseInt(code, 16)));
      to += code === undefined ? 1 : 5;
      from = to + 1;
    }
    parts.push(this.#text.slice(from, to));
    this.at = to + 1;
    return parts.join("");
  }

  #skipSpace(): void {
    while (this.at < this.#text.length && SPACE.test(this.#text.charAt(this.at))) this.at += 1;
  }
}
