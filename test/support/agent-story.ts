import type { ReportedExhaustion } from "../../common/contract/enum-names.ts";
import type { AgentCondition } from "../../src/domain/agent.ts";
import {
  type Beat,
  type BeatVerdict,
  judgeBeat,
  judgeClaimLapse,
  judgeGoodbye,
  judgeLeaseEnd,
  judgeRecovery,
  judgeStatusRequest,
  type StatusChange,
  type StatusRequest,
} from "../../src/domain/status-machine.ts";
import { applyChange, applyConfirmation, applyKnowledge, NEW_AGENT } from "./apply-change.ts";

export const START = 1_790_000_000_000_000;
export const SECOND = 1_000_000;
export const MINUTE = 60 * SECOND;
export const HOUR = 60 * MINUTE;
export const DAY = 24 * HOUR;

/** One agent, its time, and its changes; each change gets the next revision. */
export class Story {
  agent: AgentCondition;
  now = START;
  revision = 100n;

  constructor(agent: Partial<AgentCondition> = {}) {
    this.agent = { ...NEW_AGENT, ...agent };
  }

  after(micros: number): this {
    this.now += micros;
    return this;
  }

  beat(report: Beat["report"], knownRevision?: bigint): BeatVerdict {
    const verdict = judgeBeat(this.agent, { report, knownRevision }, this.now, 0.5);
    if (verdict.kind === "change") this.#apply(verdict);
    if (verdict.kind === "held_off") this.#apply(verdict.change);
    if (verdict.kind === "confirm") this.agent = applyConfirmation(this.agent);
    if (verdict.kind === "known") this.agent = applyKnowledge(this.agent);
    return verdict;
  }

  word(status: StatusRequest["status"], holdMs?: number): StatusChange | undefined {
    return this.#apply(judgeStatusRequest(this.agent, { status, holdMs }, this.now, 0.5));
  }

  exhaust(news: ReportedExhaustion): BeatVerdict {
    return this.beat({ exhausted: news });
  }

  leaseEnd(): StatusChange | undefined {
    return this.#apply(judgeLeaseEnd(this.agent));
  }

  goodbye(): StatusChange | undefined {
    return this.#apply(judgeGoodbye(this.agent));
  }

  lapse(): StatusChange | undefined {
    return this.#apply(judgeClaimLapse(this.agent, this.now));
  }

  recover(): StatusChange | undefined {
    return this.#apply(judgeRecovery(this.agent, this.now));
  }

  /** The rest of the exhaustion, in seconds. */
  get recoversInSeconds(): number {
    if (this.agent.exhaustion === null) throw new Error("the agent is not exhausted");
    return (this.agent.exhaustion.recoveryAt - this.now) / SECOND;
  }

  #apply<Change extends StatusChange | null | undefined>(change: Change): Change {
    if (change) this.agent = applyChange(this.agent, change, { now: this.now, revision: ++this.revision });
    return change;
  }
}
