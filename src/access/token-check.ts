import { timingSafeEqual } from "node:crypto";
import type { Logger } from "../../common/logging/logger.ts";
import type { Refusal } from "../domain/errors.ts";
import { type Caller, unauthenticated } from "../domain/principal.ts";
import type { Database } from "../storage/database.ts";
import { databaseUnavailable } from "../storage/failures.ts";
import { type KnownToken, readTokens, type TokenReading } from "../storage/token-reader.ts";
import { onceExpired } from "./expiry.ts";
import { hashOf, keyIdOf } from "./token-text.ts";

/** The interval of polling revocations, in milliseconds. All replicas apply a revocation within a second. */
const POLL_MS = 250;
/**
 * How long a replica that cannot poll trusts cached tokens, in milliseconds. It is longer than a failover. After it the
 * replica rejects calls with a token, because the token may have been revoked.
 */
const TRUST_MS = 60_000;
/**
 * Open streams are trusted this many times longer. A replica without its database writes nothing for them and sends
 * them no changes. If it ended all of them at once, they would only reconnect to replicas without a database.
 */
const STREAM_TRUST = 5;
/** Cached tokens: about 20 MB. The least recently used one makes room. */
const CAPACITY = 50_000;
/** Tokens in one statement. */
const BATCH = 1_000;

const UNKNOWN = "The token is unknown. Check that it is complete and belongs to this deployment.";
const EXPIRED = "The token has expired. Ask for a new one.";
const REVOKED = "The token was revoked. Ask for a new one.";

export interface TokenCheckOptions {
  readonly database: Pick<Database, "feed" | "clock">;
  readonly log: Pick<Logger, "info" | "warn">;
  readonly pollMs?: number;
  readonly trustMs?: number;
  readonly capacity?: number;
}

interface Waiting {
  resolve(token: KnownToken | undefined): void;
  reject(error: unknown): void;
}

type End = (refusal: Refusal) => void;

/**
 * Checks API tokens. Known tokens are cached, unknown ones are read in batches.
 *
 * One statement runs at a time, which reads tokens and polls revocations. So no token in the cache is older than a
 * revocation that was already applied, and callers that guess tokens cost the database one statement after the other.
 */
export class TokenCheck {
  readonly #database: TokenCheckOptions["database"];
  readonly #log: TokenCheckOptions["log"];
  readonly #pollMs: number;
  readonly #trustMs: number;
  readonly #capacity: number;
  /** Least recently used first. */
  readonly #known = new Map<string, KnownToken>();
  readonly #waiting = new Map<string, Waiting[]>();
  /** The ends of streams that a token opened. */
  readonly #streams = new Map<string, Set<End>>();
  /** Tokens of open streams that have to be read again. */
  readonly #unverified = new Set<string>();
  #position = 0n;
  #lineage: string | undefined;
  /** When the cache was last known to be up to date, of `performance.now()`. */
  #freshAt = Number.NEGATIVE_INFINITY;
  #failing = false;
  #closed = false;
  #running: Promise<void> | undefined;
  #wake: () => void = () => undefined;

  constructor(options: TokenCheckOptions) {
    this.#database = options.database;
    this.#log = options.log;
    this.#pollMs = options.pollMs ?? POLL_MS;
    this.#trustMs = options.trustMs ?? TRUST_MS;
    this.#capacity = options.capacity ?? CAPACITY;
  }

  start(): void {
    this.#running ??= this.#run();
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#wake();
    await this.#running;
    this.#rejectWaiting(undefined);
  }

  /** @throws Refusal `UNAUTHENTICATED`; rejects with `DATABASE_UNAVAILABLE` if the token cannot be read */
  check(text: string): Caller | Promise<Caller> {
    const keyId = keyIdOf(text);
    if (keyId === undefined) throw unauthenticated(UNKNOWN);
    const known = this.#isTrusted() ? this.#known.get(keyId) : undefined;
    if (known === undefined) return this.#read(keyId).then((token) => this.#judge(text, token));
    // Most recently used last.
    this.#known.delete(keyId);
    this.#known.set(keyId, known);
    return this.#judge(text, known);
  }

  #judge(text: string, token: KnownToken | undefined): Caller {
    // Both hashes have the same fixed length.
    if (token === undefined || !timingSafeEqual(hashOf(text), token.secretHash)) throw unauthenticated(UNKNOWN);
    // Only a caller that knows the secret learns that the token was revoked.
    if (token.revoked) throw unauthenticated(REVOKED);
    if (token.expiresAt <= this.#database.clock.now()) throw unauthenticated(EXPIRED);
    return { principal: token.principal, whileValid: (end) => this.#whileValid(token, end) };
  }

  #whileValid({ keyId, expiresAt }: KnownToken, end: End): () => void {
    const held = this.#streams.get(keyId) ?? new Set<End>();
    this.#streams.set(keyId, held.add(end));
    const forget = (): void => {
      held.delete(end);
      if (held.size === 0 && this.#streams.get(keyId) === held) this.#streams.delete(keyId);
    };
    const stopClock = onceExpired(
      expiresAt,
      () => this.#database.clock.now(),
      () => {
        forget();
        end(unauthenticated(EXPIRED));
      },
    );
    return () => {
      stopClock();
      forget();
    };
  }

  #isTrusted(times = 1): boolean {
    return performance.now() - this.#freshAt < this.#trustMs * times;
  }

  #read(keyId: string): Promise<KnownToken | undefined> {
    if (this.#closed) return Promise.reject(databaseUnavailable(undefined));
    return new Promise((resolve, reject) => {
      const others = this.#waiting.get(keyId);
      if (others === undefined) this.#waiting.set(keyId, [{ resolve, reject }]);
      else others.push({ resolve, reject });
      this.#wake();
    });
  }

  async #run(): Promise<void> {
    while (!this.#closed) {
      const more = await this.#poll();
      if (!this.#closed && !more) await this.#pause();
    }
  }

  /**
   * Runs one statement.
   *
   * @returns whether there is more to read at once
   */
  async #poll(): Promise<boolean> {
    const keyIds = this.#nextBatch();
    const sentAt = performance.now();
    let reading: TokenReading;
    try {
      reading = await readTokens(this.#database, this.#position, keyIds);
    } catch (error) {
      this.#onFailure(error, keyIds);
      return false;
    }
    if (this.#failing) this.#log.info({ event: "tokens.available" }, "token checks reach the database again");
    this.#failing = false;
    if (this.#lineage !== undefined && (reading.lineage !== this.#lineage || reading.newest < this.#position)) {
      this.#recheckAll();
    }
    this.#lineage = reading.lineage;
    this.#position = reading.reached;
    for (const keyId of reading.revoked) this.#revoke(keyId, REVOKED);
    for (const keyId of keyIds) this.#learn(keyId, reading.tokens.get(keyId));
    const behind = reading.reached < reading.newest;
    if (!behind) this.#freshAt = sentAt;
    return behind || this.#waiting.size > 0 || this.#unverified.size > 0;
  }

  #nextBatch(): string[] {
    const keyIds: string[] = [];
    for (const source of [this.#unverified, this.#waiting.keys()]) {
      for (const keyId of source) {
        if (keyIds.length >= BATCH) return keyIds;
        keyIds.push(keyId);
      }
    }
    return keyIds;
  }

  #learn(keyId: string, token: KnownToken | undefined): void {
    if (this.#unverified.delete(keyId) && (token === undefined || token.revoked)) this.#revoke(keyId, REVOKED);
    const waiting = this.#waiting.get(keyId);
    this.#waiting.delete(keyId);
    if (waiting !== undefined && token !== undefined) this.#remember(token);
    for (const { resolve } of waiting ?? []) resolve(token);
  }

  #remember(token: KnownToken): void {
    this.#known.delete(token.keyId);
    this.#known.set(token.keyId, token);
    if (this.#known.size <= this.#capacity) return;
    const [oldest] = this.#known.keys();
    if (oldest !== undefined) this.#known.delete(oldest);
  }

  #revoke(keyId: string, why: string): void {
    this.#known.delete(keyId);
    const held = this.#streams.get(keyId);
    this.#streams.delete(keyId);
    for (const end of [...(held ?? [])]) end(unauthenticated(why));
  }

  /** The database has another history, so its revocation numbers do not continue the former ones. */
  #recheckAll(): void {
    this.#log.warn(
      { event: "tokens.history_changed", streams: this.#streams.size },
      "the database history changed, reading all tokens again",
    );
    this.#known.clear();
    for (const keyId of this.#streams.keys()) this.#unverified.add(keyId);
  }

  #onFailure(error: unknown, keyIds: readonly string[]): void {
    if (!this.#failing && !this.#closed)
      this.#log.warn({ event: "tokens.unavailable", err: error }, "failed to read tokens, using cached ones");
    this.#failing = true;
    const failedKeyIds = new Set(keyIds);
    this.#rejectWaiting(error, failedKeyIds);
    if (this.#isTrusted(STREAM_TRUST)) return;
    for (const [keyId, held] of this.#streams) {
      this.#streams.delete(keyId);
      for (const end of [...held]) end(databaseUnavailable(error));
    }
  }

  #rejectWaiting(error: unknown, only?: ReadonlySet<string>): void {
    for (const [keyId, waiting] of this.#waiting) {
      if (only !== undefined && !only.has(keyId)) continue;
      this.#waiting.delete(keyId);
      for (const { reject } of waiting) reject(databaseUnavailable(error));
    }
  }

  #pause(): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.#wake(), this.#pollMs);
      this.#wake = () => {
        clearTimeout(timer);
        this.#wake = () => undefined;
        resolve();
      };
    });
  }
}
