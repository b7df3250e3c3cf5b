export interface TokenBucketOptions {
  /** Tokens that a bucket gains each second. */
  readonly perSecond: number;
  /** Tokens that a full bucket holds: how many can be taken at once. */
  readonly burst: number;
  /** A monotonic clock in milliseconds. Default `performance.now`. */
  readonly now?: () => number;
}

/** Fractions of a token add up with an error: 0.1 ten times is less than 1. */
const ALMOST_ONE = 1 - 1e-9;

/** A token bucket, full at first. */
export class TokenBucket {
  readonly #options: TokenBucketOptions;
  #tokens: number;
  #filledAt: number;

  constructor(options: TokenBucketOptions) {
    this.#options = options;
    this.#tokens = options.burst;
    this.#filledAt = this.#now();
  }

  /** Takes a token. Returns 0 if there was one; else the time until there is one, in whole milliseconds, at least 1. */
  take(): number {
    this.#fill();
    if (this.#tokens < ALMOST_ONE) {
      return Math.max(1, Math.ceil(((ALMOST_ONE - this.#tokens) * 1_000) / this.#options.perSecond));
    }
    this.#tokens = Math.max(0, this.#tokens - 1);
    return 0;
  }

  /** Takes `count` tokens, even if the bucket has fewer: it then owes them, up to one `burst`. */
  charge(count: number): void {
    this.#fill();
    this.#tokens = Math.max(-this.#options.burst, this.#tokens - count);
  }

  #fill(): void {
    const now = this.#now();
    const { perSecond, burst } = this.#options;
    this.#tokens = Math.min(burst, this.#tokens + ((now - this.#filledAt) * perSecond) / 1_000);
    this.#filledAt = now;
  }

  #now(): number {
    return this.#options.now?.() ?? performance.now();
  }
}

export interface TokenBucketsOptions extends TokenBucketOptions {
  /**
   * How many buckets are kept. The least recently used one is dropped first, and its key starts with a full bucket again. A
   * caller profits only if it has more keys than there are buckets. Default 10 000, about 1 MB.
   */
  readonly maxKeys?: number;
}

/** A token bucket for each key, in bounded memory. */
export class TokenBuckets {
  readonly #options: TokenBucketsOptions;
  readonly #maxKeys: number;
  /** The least recently used first. */
  readonly #buckets = new Map<string, TokenBucket>();

  constructor(options: TokenBucketsOptions) {
    this.#options = options;
    this.#maxKeys = options.maxKeys ?? 10_000;
  }

  /** See `TokenBucket.take`. */
  take(key: string): number {
    return this.#bucket(key).take();
  }

  /** See `TokenBucket.charge`. */
  charge(key: string, count: number): void {
    this.#bucket(key).charge(count);
  }

  #bucket(key: string): TokenBucket {
    const bucket = this.#buckets.get(key) ?? new TokenBucket(this.#options);
    this.#buckets.delete(key);
    this.#buckets.set(key, bucket);
    if (this.#buckets.size > this.#maxKeys) {
      const [oldest] = this.#buckets.keys();
      if (oldest !== undefined) this.#buckets.delete(oldest);
    }
    return bucket;
  }

  /** How many keys have a bucket. */
  get size(): number {
    return this.#buckets.size;
  }
}
