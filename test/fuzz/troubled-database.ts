import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { migrate } from "../../src/storage/migrations.ts";
import type { Random } from "../chaos/random.ts";
import { FaultProxy } from "../support/fault-proxy.ts";

/** Errors of a server that has run full, or is overloaded. */
const SQLSTATES = ["53100", "53200", "53400", "57014", "40P01", "55P03"] as const;

const TABLES = ["users", "agents", "agent_liveness", "agent_transitions", "request_ids", "api_tokens"] as const;

/**
 * A database behind a proxy, which stalls, refuses connections, breaks them, and runs full. Triggers make it
 * full: its writes fail with the server's own errors, within transactions.
 */
export class TroubledDatabase implements AsyncDisposable {
  /** The database's address through the proxy. */
  readonly url: string;
  /** The number of faults by kind. */
  readonly troubles = new Map<string, number>();
  readonly #proxy: FaultProxy;
  readonly #direct: pg.Client;
  readonly #stop = new AbortController();
  #running: Promise<void> | undefined;

  private constructor(url: string, proxy: FaultProxy, direct: pg.Client) {
    this.url = url;
    this.#proxy = proxy;
    this.#direct = direct;
  }

  /** Migrates the database if it is not, since the triggers need its tables. */
  static async open(databaseUrl: string): Promise<TroubledDatabase> {
    await migrate(databaseUrl);
    const direct = new pg.Client({ connectionString: databaseUrl });
    direct.on("error", () => undefined);
    await direct.connect();
    await direct.query(`
      CREATE TABLE fuzz_trouble (code text);
      INSERT INTO fuzz_trouble VALUES (NULL);
      CREATE FUNCTION fuzz_fail() RETURNS trigger LANGUAGE plpgsql AS $$
      DECLARE failure text := (SELECT code FROM fuzz_trouble);
      BEGIN
        IF failure IS NOT NULL THEN RAISE EXCEPTION 'no room left' USING ERRCODE = failure; END IF;
        RETURN NULL;
      END $$;
      ${TABLES.map((table) => `CREATE TRIGGER fuzz_fail BEFORE INSERT OR UPDATE OR DELETE ON ${table} FOR EACH STATEMENT EXECUTE FUNCTION fuzz_fail();`).join("\n")}
    `);
    const address = new URL(databaseUrl);
    const port = Number(address.port);
    const proxy = await FaultProxy.open(() => [port]);
    address.host = proxy.address;
    return new TroubledDatabase(address.href, proxy, direct);
  }

  /** Makes faults, of some seconds each, with pauses between, until `end`. */
  begin(random: Random): void {
    this.#running ??= this.#run(random).catch((error: unknown) => {
      if (!this.#stop.signal.aborted) throw error;
    });
  }

  /** The database works again. */
  async end(): Promise<void> {
    this.#stop.abort();
    await this.#running;
    this.#proxy.mend();
    await this.#fail(null);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end();
    await this.#direct.end();
    await this.#proxy[Symbol.asyncDispose]();
  }

  async #run(random: Random): Promise<void> {
    const kinds = ["stalls", "refuses", "breaks", "is full"] as const;
    for (let turn = 0; ; turn += 1) {
      await this.#wait(random.between(300, 1_000));
      const kind = kinds[turn % kinds.length] ?? "breaks";
      this.troubles.set(kind, (this.troubles.get(kind) ?? 0) + 1);
      if (kind === "stalls") this.#proxy.swallow();
      else if (kind === "refuses") this.#proxy.cut();
      else if (kind === "breaks") this.#proxy.drop();
      else await this.#fail(random.pick(SQLSTATES));
      // A stall must outlast the timeouts of the service.
      if (kind !== "breaks")
        await this.#wait(kind === "stalls" ? random.between(1_000, 9_000) : random.between(500, 3_000));
      this.#proxy.mend();
      await this.#fail(null);
    }
  }

  async #fail(code: string | null): Promise<void> {
    await this.#direct.query("UPDATE fuzz_trouble SET code = $1", [code]);
  }

  async #wait(ms: number): Promise<void> {
    await sleep(ms, undefined, { signal: this.#stop.signal });
  }
}
