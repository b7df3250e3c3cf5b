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
    const tokens = this.#tokens(key);
    const taken = tokens >= ALMOST_ONE;
    this.#put(key, taken ? Math.max(0, tokens - 1) : tokens);
    return taken ? 0 : Math.max(1, Math.ceil((ALMOST_ONE - tokens) / this.#perMs));
  }

  /** Takes tokens that may not be there yet, and then have to come back before there is one again; no more than a bucket holds. */
  charge(key: string, count: number): void {
    this.#put(key, Math.max(-this.#burst, this.#tokens(key) - count));
  }

  #tokens(key: string): number {
    const known = this.#buckets.get(key);
    if (known === undefined) return this.#burst;
    return Math.min(this.#burst, known.tokens + (this.#now() - known.filledAt) * this.#perMs);
  }

  #put(key: string, tokens: number): void {
    this.#buckets.delete(key);
    this.#buckets.set(key, { tokens, filledAt: this.#now() });
    if (this.#buckets.size <= this.#maxKeys) return;
    for (const oldest of this.#buckets.keys()) {
      this.#buckets.delete(oldest);
      break;
    }
  }

  /** How many keys are remembered. */
  get size(): number {
    return this.#buckets.size;
  }
}
