import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "../../common/logging/logger.ts";
import { Backoff } from "../../common/scheduling/backoff.ts";
import type { WakeNotice } from "../domain/message-to-claw.ts";
import { isTerminal, type OpenWake, type Wake } from "../domain/wake.ts";
import { idle } from "../domain/wake-beats.ts";
import { stepOf } from "../domain/wake-machine.ts";
import { KEEP_LEASE } from "../storage/agent-change.ts";
import type { Committer } from "../storage/committer.ts";
import type { Database } from "../storage/database.ts";
import { retryRead } from "../storage/retries.ts";
import { readWakes } from "../storage/wake-facts.ts";
import { openWakes } from "../storage/wake-queries.ts";
import type { HeldAgent } from "./held-agent.ts";

/** The largest number of wakes in one read: their payloads take 4 KiB each. */
const LARGEST_READ = 256;
const FIRST_RETRY_MS = 50;
const LONGEST_RETRY_MS = 500;

interface Waiting {
  readonly holder: HeldAgent;
  readonly wakeId: string;
}

/**
 * Tells sessions of the wakes of their agents. A notice is the state of a wake, as read from the database at that moment:
 * so a session gets the newest state, however often it is told.
 */
export class WakeNotices {
  readonly #database: Database;
  readonly #committer: Committer;
  readonly #log: Logger;
  #waiting: Waiting[] = [];
  #running = false;
  readonly #closing = new AbortController();

  constructor(options: { database: Database; committer: Committer; log: Logger }) {
    this.#database = options.database;
    this.#committer = options.committer;
    this.#log = options.log;
  }

  close(): void {
    this.#closing.abort();
  }

  /** A wake of an agent that the session holds changed. */
  send(holder: HeldAgent, wakeId: string): void {
    this.#waiting.push({ holder, wakeId });
    if (this.#running) return;
    this.#running = true;
    // The transitions of one moment share a read.
    setImmediate(() => void this.#run());
  }

  /** A session claimed an agent with an open wake: the session is told, or its offer ends if the session takes no wakes. */
  onOpenWake(holder: HeldAgent, open: OpenWake): void {
    if (holder.session.wakesFor !== undefined) this.send(holder, open.wakeId);
    else if (open.state === "offered") void this.#withdraw(holder, open.wakeId);
  }

  /** Parts of the log are lost, and changes of wakes with them: the sessions of these agents are told their open wakes. */
  async onLostHistory(holders: readonly HeldAgent[]): Promise<void> {
    const takers = new Map(holders.filter(({ session }) => session.wakesFor !== undefined).map((one) => [one.id, one]));
    if (takers.size === 0) return;
    try {
      for (const { agent, wakeId } of await retryRead(() => openWakes(this.#database, [...takers.keys()]))) {
        const holder = takers.get(agent);
        if (holder !== undefined) this.send(holder, wakeId);
      }
    } catch (error) {
      this.#log.debug({ event: "wake.read_failed", err: error }, "failed to read wakes, retrying");
    }
  }

  async #run(): Promise<void> {
    const backoff = new Backoff(FIRST_RETRY_MS, LONGEST_RETRY_MS);
    while (this.#waiting.length > 0 && !this.#closing.signal.aborted) {
      const batch = this.#waiting.splice(0, LARGEST_READ);
      try {
        const wakeIds = [...new Set(batch.map(({ wakeId }) => wakeId))];
        const wakes = new Map((await readWakes(this.#database.feed, wakeIds)).map((wake) => [wake.wakeId, wake]));
        for (const { holder, wakeId } of batch) this.#tell(holder, wakes.get(wakeId));
        backoff.reset();
      } catch (error) {
        this.#log.debug({ event: "wake.read_failed", err: error }, "failed to read wakes, retrying");
        this.#waiting.unshift(...batch.filter(({ holder }) => !holder.session.closed));
        await sleep(backoff.next(), undefined, { signal: this.#closing.signal }).catch(() => undefined);
      }
    }
    this.#running = false;
  }

  #tell(holder: HeldAgent, wake: Wake | undefined): void {
    // A wake that was never offered does not concern the claw.
    if (wake === undefined || wake.agent !== holder.id || wake.offerRevision === 0n || holder.session.closed) return;
    // Another session has the agent: it has the wake, too. The end of an offer is told to the session that had it.
    const isOpen = wake.state === "offered" || wake.state === "accepted";
    if (isOpen && holder.state !== "held") return;
    holder.session.notifyOfWake(this.#noticeOf(wake));
  }

  #noticeOf(wake: Wake): WakeNotice {
    const { answerBy } = wake;
    const leftMs = answerBy === null ? null : Math.max(0, (answerBy - this.#database.clock.now()) / 1_000);
    return {
      kind: "wake",
      agentId: wake.agentId,
      wakeId: wake.wakeId,
      offerRevision: wake.offerRevision,
      state: wake.state,
      reason: wake.reason,
      claim: wake.claim,
      answerWithinMs: leftMs,
      payload: isTerminal(wake.state) ? null : wake.payload,
      isCancelRequested: wake.cancelRequestedAt !== null,
      expiresAt: wake.expiresAt,
    };
  }

  /** The session takes no wakes, so nothing can answer the offer. Its deadline is the backstop. */
  async #withdraw(holder: HeldAgent, wakeId: string): Promise<void> {
    const { agentId, id, epoch } = holder;
    try {
      await this.#committer.submit<void>({
        agentId,
        id,
        actor: "server",
        judge: (agent, now) => {
          const done = { kind: "done", result: undefined } as const;
          const open = agent?.wakes?.open ?? null;
          if (agent === undefined || agent.epoch !== epoch || open?.state !== "offered" || open.wakeId !== wakeId) {
            return done;
          }
          const write = stepOf(open, "lose_session", now);
          if (write === undefined) return done;
          return {
            kind: "write",
            write: {
              kind: "update",
              agent,
              cause: "wake",
              status: idle(),
              lease: KEEP_LEASE,
              fenceEpoch: true,
              wakes: [write],
            },
            result: () => undefined,
            guarded: () => undefined,
          };
        },
      });
    } catch (error) {
      this.#log.debug({ event: "wake.withdrawal_failed", err: error, agentId, wakeId }, "failed to withdraw an offer");
    }
  }
}
