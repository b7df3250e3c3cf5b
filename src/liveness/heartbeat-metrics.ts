import type { Reason } from "../domain/errors.ts";
import type { Count } from "../telemetry/metrics/count.ts";
import type { LabelsOf } from "../telemetry/metrics/metric-table.ts";
import type { Metrics } from "../telemetry/metrics/metrics.ts";
import type { AgentEntry } from "./agent-entry.ts";
import type { SettledOutcome } from "./pending-beat.ts";

type Result = LabelsOf<"harborforge_heartbeats_total">["result"];
type Taker = LabelsOf<"harborforge_sessions_superseded_total">["by"];

/** The results of rejected beats. A reason that is missing here is the fault of the beat itself. */
const RESULTS: Partial<Readonly<Record<Reason, Result>>> = {
  REPORT_OUTDATED: "outdated",
  SESSION_SUPERSEDED: "superseded",
  WRONG_CLAW: "wrong_claw",
  PERMISSION_DENIED: "denied",
  AGENT_NOT_FOUND: "unknown",
  LIMIT_EXCEEDED: "limited",
};

/** Counts beats, their acknowledgements and the sessions that they come with. Beats come by the thousand: it looks nothing up. */
export class HeartbeatMetrics {
  readonly #results: Readonly<Record<Result, Count>>;
  readonly #superseded: Readonly<Record<Taker, Count>>;
  readonly #acknowledgement;
  readonly #margin;

  constructor(metrics: Metrics) {
    const result = (value: Result): Count => metrics.counter("harborforge_heartbeats_total", { result: value });
    this.#results = {
      renewed: result("renewed"),
      transition: result("transition"),
      outdated: result("outdated"),
      superseded: result("superseded"),
      wrong_claw: result("wrong_claw"),
      denied: result("denied"),
      unknown: result("unknown"),
      limited: result("limited"),
      invalid: result("invalid"),
    };
    const by = (value: Taker): Count => metrics.counter("harborforge_sessions_superseded_total", { by: value });
    this.#superseded = {
      same_process: by("same_process"),
      other_process: by("other_process"),
      other_replica: by("other_replica"),
    };
    this.#acknowledgement = metrics.histogram("harborforge_heartbeat_acknowledgement_seconds");
    this.#margin = metrics.histogram("harborforge_lease_margin_ratio");
  }

  /** A beat was applied or rejected. */
  settled(outcome: SettledOutcome): void {
    if (outcome.kind === "refused") this.#results[RESULTS[outcome.refusal.reason] ?? "invalid"].add();
    else this.#results[outcome.changed === true ? "transition" : "renewed"].add();
  }

  /** A message arrived at `receivedAt`, by `performance.now()`, and all of its beats are settled. */
  acknowledged(receivedAt: number): void {
    this.#acknowledgement.observe((performance.now() - receivedAt) / 1_000);
  }

  /**
   * A heartbeat renews the lease of an agent at `now`. Call it before the entry has the new end.
   *
   * @param leaseMs the length of the new lease, in milliseconds: the former one had nearly the same
   */
  renewing({ dueAt, heldBack }: AgentEntry, now: number, leaseMs: number): void {
    // While its expiry is held back, `dueAt` is not the end of the lease.
    if (dueAt === null || heldBack) return;
    this.#margin.observe(Math.min(1, (dueAt - now) / (leaseMs * 1_000)));
  }

  /** A stream of this replica lost an agent that it held. */
  superseded(by: Taker): void {
    this.#superseded[by].add();
  }
}
