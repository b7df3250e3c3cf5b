import type { Metrics } from "../telemetry/metrics/metrics.ts";
import type { AgentWrite, Committed } from "./agent-change.ts";

/** Counts what a committer commits. */
export class CommitMetrics {
  readonly #metrics: Metrics;
  readonly #seconds;
  readonly #group;

  constructor(metrics: Metrics) {
    this.#metrics = metrics;
    this.#seconds = metrics.histogram("harborforge_commit_seconds");
    this.#group = metrics.histogram("harborforge_commit_group_transitions");
  }

  /** Observes the transaction of a group, whether it succeeds or fails. */
  async timed<Outcome>(members: number, commit: () => Promise<Outcome>): Promise<Outcome> {
    this.#group.observe(members);
    const begun = performance.now();
    try {
      return await commit();
    } finally {
      this.#seconds.observe((performance.now() - begun) / 1_000);
    }
  }

  /** Counts a committed write, if it is a transition. */
  committed(write: AgentWrite, { agent, revision }: Committed): void {
    if (revision === null || write.kind === "quiet") return;
    const cause = write.kind === "create" ? "created" : write.cause;
    const toStatus = write.kind === "delete" ? "deleted" : agent.status;
    this.#metrics.counter("harborforge_transitions_total", { cause, to_status: toStatus }).add();
  }
}
