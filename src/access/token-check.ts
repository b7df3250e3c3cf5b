import { timingSafeEqual } from "node:crypto";
import type { Refusal } from "../domain/errors.ts";
import { type Caller, unauthenticated } from "../domain/principal.ts";
import type { Database } from "../storage/database.ts";
import { databaseUnavailable } from "../storage/failures.ts";
import { type KnownToken, readTokens, type TokenReading } from "../storage/token-reader.ts";
import { onceExpired } from "./expiry.ts";
import { hashOf, keyIdOf } from "./token-text.ts";

/** How often revocations are asked for: with it, and what the statement takes, all replicas heed one within a second. */
const POLL_MS = 250;
/**
 * How long a replica that cannot ask trusts what it knows. Longer than a failover takes; after that no call is let in by a
 * token: it may have been revoked.
 */
const TRUST_MS = 60_000;
/**
 * Streams that stand are trusted so many times as long: a replica without its database writes nothing for them and has no
 * news, and all of them at once on their way to replicas that are no better off would only be there when it is back.
 */
const STREAM_TRUST = 5;
/** Tokens in memory: some 20 MB. The one that was used longest ago makes room. */
const CAPACITY = 50_000;
/** Tokens read by one statement. */
const BATCH = 1_000;

const UNKNOWN = "This token is not known here. Check that it is whole, and of this deployment.";
const EXPIRED = "This token has expired. Ask for a new one.";
const REVOKED = "This token was revoked. Ask for a new one.";

export interface TokenCheckOptions {
  readonly database: Pick<Database, "feed" | "clock">;
  readonly log: { info(facts: object, message: string): void; warn(facts: object, message: string): void };
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
 * Checks tokens. Those that were shown before are known by heart; what is not is read, many in one statement, and only
 * one such statement runs at a time, which also asks for revocations: so nothing that was read can be older than a
 * revocation that was heeded already, and strangers who try tokens cost the database one statement after the other.
 */
export class TokenCheck {
  readonly #database: TokenCheckOptions["database"];
  readonly #log: TokenCheckOptions["log"];
  readonly #pollMs: number;
  readonly #trustMs: number;
  readonly #capacity: number;
  /** The one that was used longest ago first. */
  readonly #known = new Map<string, KnownToken>();
  readonly #waiting = new Map<string, Waiting[]>();
  /** Streams that were opened by a token. */
  readonly #held = new Map<string, Set<End>>();
  /** Tokens of streams that have to be read again. */
  readonly #doubted = new Set<string>();
  #reached = 0n;
  #lineage: string | undefined;
  /** Of `performance.now()`: when what is known was last known to be true. */
  #trueAt = Number.NEGATIVE_INFINITY;
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
    this.#refuseWaiting(undefined);
  }

  /** @throws Refusal `UNAUTHENTICATED`; rejects with `DATABASE_UNAVAILABLE` where it cannot be read */
  check(text: string): Caller | Promise<Caller> {
    const keyId = keyIdOf(text);
    if (keyId === undefined) throw unauthenticated(UNKNOWN);
    const known = this.#isTrusted() ? this.#known.get(keyId) : undefined;
    if (known === undefined) return this.#read(keyId).then((token) => this.#judge(text, token));
    // The newest is last.
    this.#known.delete(keyId);
    this.#known.set(keyId, known);
    return this.#judge(text, known);
  }

  #judge(text: string, token: KnownToken | undefined): Caller {
    // Of fixed length, both of them.
    if (token === undefined || !timingSafeEqual(hashOf(text), token.secretHash)) throw unauthenticated(UNKNOWN);
    // Only who knows the secret is told what became of the token.
    if (token.revoked) throw unauthenticated(REVOKED);
    if (token.expiresAt <= this.#database.clock.now()) throw unauthenticated(EXPIRED);
    return { principal: token.principal, whileValid: (end) => this.#whileValid(token, end) };
  }

  #whileValid({ keyId, expiresAt }: KnownToken, end: End): () => void {
    const held = this.#held.get(keyId) ?? new Set<End>();
    this.#held.set(keyId, held.add(end));
    const forget = (): void => {
      held.delete(end);
      if (held.size === 0 && this.#held.get(keyId) === held) this.#held.delete(keyId);
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
    return performance.now() - this.#trueAt < this.#trustMs * times;
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
      const more = await this.#turn();
      if (!this.#closed && !more) await this.#pause();
    }
  }

  /** One statement. Returns whether there is more to read at once. */
  async #turn(): Promise<boolean> {
    const keyIds = this.#nextBatch();
    const sentAt = performance.now();
    let reading: TokenReading;
    try {
      reading = await readTokens(this.#database, this.#reached, keyIds);
    } catch (error) {
      this.#failed(error, keyIds);
      return false;
    }
    if (this.#failing) this.#log.info({}, "tokens are checked with the database again");
    this.#failing = false;
    if (this.#lineage !== undefined && (reading.lineage !== this.#lineage || reading.newest < this.#reached)) {
      this.#doubtEverything();
    }
    this.#lineage = reading.lineage;
    this.#reached = reading.reached;
    for (const keyId of reading.revoked) this.#revoke(keyId, REVOKED);
    for (const keyId of keyIds) this.#learn(keyId, reading.tokens.get(keyId));
    const behind = reading.reached < reading.newest;
    if (!behind) this.#trueAt = sentAt;
    return behind || this.#waiting.size > 0 || this.#doubted.size > 0;
  }

  #nextBatch(): string[] {
    const keyIds: string[] = [];
    for (const source of [this.#doubted, this.#waiting.keys()]) {
      for (const keyId of source) {
        if (keyIds.length >= BATCH) return keyIds;
        keyIds.push(keyId);
      }
    }
    return keyIds;
  }

  #learn(keyId: string, token: KnownToken | undefined): void {
    if (this.#doubted.delete(keyId) && (token === undefined || token.revoked)) this.#revoke(keyId, REVOKED);
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
    const held = this.#held.get(keyId);
    this.#held.delete(keyId);
    for (const end of [...(held ?? [])]) end(unauthenticated(why));
  }

  /** The database is of another history: what was revoked there, nobody here can tell by numbers. */
  #doubtEverything(): void {
    this.#log.warn({ streams: this.#held.size }, "the database is of another history: all tokens are read again");
    this.#known.clear();
    for (const keyId of this.#held.keys()) this.#doubted.add(keyId);
  }

  #failed(error: unknown, keyIds: readonly string[]): void {
    if (!this.#failing && !this.#closed) this.#log.warn({ err: error }, "tokens cannot be checked with the database");
    this.#failing = true;
    const asked = new Set(keyIds);
    this.#refuseWaiting(error, asked);
    if (this.#isTrusted(STREAM_TRUST)) return;
    for (const [keyId, held] of this.#held) {
      this.#held.delete(keyId);
      for (const end of [...held]) end(databaseUnavailable(error));
    }
  }

  #refuseWaiting(error: unknown, only?: ReadonlySet<string>): void {
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
