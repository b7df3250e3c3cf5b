import { toRfc3339 } from "../../common/contract/time.ts";
import type { Logger } from "../../common/logging/logger.ts";
import type { Transition } from "../domain/agent.ts";
import type { Database } from "../storage/database.ts";
import { readSilentClaw, type SilentClaw } from "../storage/incidents.ts";
import type { Count } from "../telemetry/metrics/count.ts";
import type { Metrics } from "../telemetry/metrics/metrics.ts";

/** The incidents whose end this replica logs. */
const MOST_OPEN = 10_000;

/** Logs claws that fell silent, and their return, with the facts that lead an operator to them. Counts the former. */
export class SilentClaws {
  readonly #database: Database;
  readonly #log: Logger;
  readonly #newestPeer: (clawIdentifier: string) => string | undefined;
  /** By claw. */
  readonly #open = new Map<string, SilentClaw>();
  readonly #reading = new Set<Promise<void>>();
  readonly #count: Count;

  constructor(options: {
    database: Database;
    log: Logger;
    metrics: Metrics;
    /** From where the claw connected just now; undefined: the database knows. */
    newestPeer(clawIdentifier: string): string | undefined;
  }) {
    this.#database = options.database;
    this.#log = options.log;
    this.#count = options.metrics.counter("harborforge_claw_incidents_total");
    this.#newestPeer = (clawIdentifier) => options.newestPeer(clawIdentifier);
  }

  /** The number of claws that this replica found silent since its start. */
  get count(): number {
    return this.#count.value;
  }

  /** This replica expired the first lease of a silent claw. */
  onSilent(clawIdentifier: string): void {
    this.#count.add();
    const peer = this.#newestPeer(clawIdentifier);
    this.#read(clawIdentifier, (claw) => {
      if (claw !== undefined && this.#open.size < MOST_OPEN) this.#open.set(clawIdentifier, claw);
      const facts =
        claw === undefined
          ? { clawIdentifier }
          : { ...factsOf({ ...claw, peer: peer ?? claw.peer }), agents: Number(claw.silentAgents) };
      this.#log.warn({ event: "claw.silent", ...facts }, "a claw fell silent, its agents go offline");
    });
  }

  /** Takes the log of transitions. */
  onTransition({ toClaw, fromStatus, toStatus, occurredAt }: Transition): void {
    if (this.#open.size === 0 || toClaw === null || fromStatus !== "offline" || toStatus === "offline") return;
    const began = this.#open.get(toClaw);
    if (began === undefined || toStatus === null) return;
    this.#open.delete(toClaw);
    const silentMs = Math.round((occurredAt - (began.lastHeartbeat ?? began.since)) / 1_000);
    this.#read(toClaw, (claw) => {
      const last = claw?.incidentId === began.incidentId ? claw : began;
      const facts = { ...factsOf(last), agents: Number(last.agents), silentMs };
      this.#log.info({ event: "claw.returned", ...facts }, "a silent claw sends heartbeats again");
    });
  }

  /** Resolves when all lines are written. */
  async close(): Promise<void> {
    while (this.#reading.size > 0) await Promise.all(this.#reading);
  }

  /** Without facts if they cannot be read: the line is more important. */
  #read(clawIdentifier: string, write: (claw: SilentClaw | undefined) => void): void {
    const reading = readSilentClaw(this.#database, clawIdentifier)
      .catch(() => undefined)
      .then(write)
      .finally(() => this.#reading.delete(reading));
    this.#reading.add(reading);
  }
}

function factsOf({ incidentId, clawIdentifier, lastHeartbeat, peer }: SilentClaw) {
  return {
    incidentId,
    clawIdentifier,
    lastHeartbeat: lastHeartbeat === null ? undefined : toRfc3339(lastHeartbeat),
    peer: peer ?? undefined,
  };
}
