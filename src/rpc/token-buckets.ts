export interface TokenBucketOptions {
  /** Tokens that come back each second. */
  readonly perSecond: number;
  /** Tokens that a full bucket holds: what may be taken at once. */
  readonly burst: number;
  /**
   * Buckets that are remembered. The one that was touched least lately is forgotten first, and whose it was starts with a
   * full one: that helps nobody who has not as many keys as there are buckets. Default 10 000, 1 MB or so.
   */
  readonly maxKeys?: number;
  /** A clock in milliseconds that never goes back. */
  readonly now?: () => number;
}

interface Bucket {
  tokens: number;
  filledAt: number;
}

/** What tenths and hundredths add up to, where one was meant. */
const ALMOST_ONE = 1 - 1e-9;

/** A token bucket for each key, in bounded memory. */
export class TokenBuckets {
  readonly #perMs: number;
  readonly #burst: number;
  readonly #maxKeys: number;
  readonly #now: () => number;
  /** In the order in which they were touched. */
  readonly #buckets = new Map<string, Bucket>();

  constructor(options: TokenBucketOptions) {
    this.#perMs = options.perSecond / 1_000;
    this.#burst = options.burst;
    this.#maxKeys = options.maxKeys ?? 10_000;
    this.#now = options.now ?? (() => performance.now());
  }

  /** Takes a token. 0 if there was one; else how long it takes until there is, in whole milliseconds, at least 1. */
  take(key: string): number {
    const now = this.#now();
    const known = this.#buckets.get(key);
    const tokens =
      known === undefined ? this.#burst : Math.min(this.#burst, known.tokens + (now - known.filledAt) * this.#perMs);
    const taken = tokens >= ALMOST_ONE;
    const left = taken ? Math.max(0, tokens - 1) : tokens;
    if (known !== undefined) this.#buckets.delete(key);
    this.#buckets.set(key, { tokens: left, filledAt: now });
    if (this.#buckets.size > this.#maxKeys) {
      for (const oldest of this.#buckets.keys()) {
        this.#buckets.delete(oldest);
        break;
      }
    }
    return taken ? 0 : Math.max(1, Math.ceil((ALMOST_ONE - tokens) / this.#perMs));
  }

  /** How many keys are remembered. */
  get size(): number {
    return this.#buckets.size;
  }
}
