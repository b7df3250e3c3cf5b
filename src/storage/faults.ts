import type { Logger } from "../../common/logging/logger.ts";
import { textOfCode } from "./failures.ts";

/** A connection had another session than the one that it began. */
export const SESSION_LOST = "session lost";

/** Faults that concern the whole database: SQLSTATEs, and lost sessions. */
const CODES = ["25006", "53100", "53300", SESSION_LOST] as const;

export type FaultCode = (typeof CODES)[number];

/** A fault has ended when no statement has failed with it for this long, in milliseconds. */
const ENDED_AFTER_MS = 10_000;
/** A fault persists when statements have failed with it for this long, in milliseconds. */
const PERSISTS_AFTER_MS = 3_000;

export interface DatabaseFaultsOptions {
  readonly log: Pick<Logger, "warn" | "info">;
  /** A fault began to persist, or ended. */
  onChange(code: FaultCode, persists: boolean): void;
}

interface Fault {
  readonly firstAt: number;
  lastAt: number;
  persists: boolean;
}

/**
 * Faults that concern the whole database, as statements and logins meet them. They end late, so that a fault that only some
 * statements meet does not come and go.
 */
export class DatabaseFaults {
  readonly #options: DatabaseFaultsOptions;
  readonly #faults = new Map<FaultCode, Fault>();

  constructor(options: DatabaseFaultsOptions) {
    this.#options = options;
  }

  /** What is wrong with the database, for people. */
  get texts(): readonly string[] {
    return [...this.#faults.keys()].map(faultTextOf);
  }

  /** Whether statements failed with this fault lately. */
  has(code: FaultCode): boolean {
    return this.#faults.has(code);
  }

  /** A statement or a login failed with this SQLSTATE, or a session was lost. */
  note(code: string): void {
    if (!isFaultCode(code)) return;
    const now = performance.now();
    const fault = this.#faults.get(code);
    if (fault === undefined) {
      this.#faults.set(code, { firstAt: now, lastAt: now, persists: false });
      this.#warn(code);
      return;
    }
    fault.lastAt = now;
    if (fault.persists || now - fault.firstAt < PERSISTS_AFTER_MS) return;
    fault.persists = true;
    this.#options.onChange(code, true);
  }

  /** Call it every second or so. */
  check(): void {
    const now = performance.now();
    for (const [code, { lastAt, persists }] of this.#faults) {
      if (now - lastAt < ENDED_AFTER_MS) continue;
      this.#faults.delete(code);
      this.#options.log.info({ event: "database.fault_ended", fault: code }, "a fault of the database has ended");
      if (persists) this.#options.onChange(code, false);
    }
  }

  #warn(code: FaultCode): void {
    const { log } = this.#options;
    if (code === "25006") log.warn({ event: "database.read_only", sqlstate: code }, "the database is read-only");
    else if (code === "53100")
      log.warn({ event: "database.disk_full", sqlstate: code }, "the disk of the database is full");
    else if (code === "53300")
      log.warn({ event: "database.connections_exhausted", sqlstate: code }, "the database has no free connection");
    else log.warn({ event: "database.session_lost" }, "a connection had another session, closed it");
  }
}

function isFaultCode(code: string): code is FaultCode {
  return CODES.some((known) => known === code);
}

/** What is wrong with the database, for people. */
export function faultTextOf(code: FaultCode): string {
  return code === SESSION_LOST ? "its connection pooler is not in session mode" : textOfCode(code);
}
