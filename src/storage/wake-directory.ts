import { createHash } from "node:crypto";
import type { Knex } from "knex";
import type { Agent } from "../domain/agent.ts";
import { isTerminal, MAX_QUEUED_WAKES, type NewWake, type Wake, type WakeWrite } from "../domain/wake.ts";
import { obstacleTo } from "../domain/wake-admission.ts";
import { idle, unchanged } from "../domain/wake-beats.ts";
import type { WakeCaller, WakeDirectory, WakeQuery } from "../domain/wake-directory.ts";
import { stepOf } from "../domain/wake-machine.ts";
import { offerWrite } from "../domain/wake-offer.ts";
import { wakeNotFound } from "../domain/wake-replies.ts";
import { type AgentUpdate, KEEP_LEASE } from "./agent-change.ts";
import { AgentReads } from "./agent-reads.ts";
import type { Committer, Verdict } from "./committer.ts";
import type { Database } from "./database.ts";
import { readLogPosition } from "./log-position.ts";
import { pageOf } from "./page.ts";
import { agentNotFound, revisionMismatch } from "./refusals.ts";
import { boundsOf, readSnapshot, retryRead } from "./retries.ts";
import type { OfferLimit } from "./wake-change.ts";
import { readWakes, type StoredWake, type WakeFacts } from "./wake-facts.ts";
import { createPauses } from "./wake-pauses.ts";
import { wakeDenied, wakeExpired, wakeIdTaken, wakeQueueFull, wakesLimited } from "./wake-refusals.ts";
import { type WakeRow, wakeFromRow } from "./wake-row.ts";

/** The outcome of one attempt to wake an agent. */
type Attempt =
  | { readonly kind: "settled"; readonly agent: Agent | undefined }
  /** A limit of offers was reached: the wake may be queued instead. */
  | { readonly kind: "limited"; readonly limit: OfferLimit };

/** The directory of wakes and pauses in the database. */
export function createWakeDirectory(options: {
  readonly database: Database;
  readonly committer: Committer;
}): WakeDirectory {
  const { database, committer } = options;
  const { knex } = database;
  const agents = new AgentReads(database.reads);

  async function existing(wakeId: string): Promise<Wake> {
    const [wake] = await retryRead(() => readWakes(database.reads, [wakeId]));
    if (wake === undefined) throw wakeNotFound(wakeId);
    return wake;
  }

  function attempt(
    wake: NewWake,
    expectedRevision: bigint | undefined,
    caller: WakeCaller,
    limit: OfferLimit | undefined,
  ): Promise<Attempt> {
    const contentHash = contentHashOf(wake);
    return committer.submit<Attempt>({
      agentId: wake.agentId,
      actor: caller.actor,
      ...boundsOf(caller.call),
      facts: { wakeIds: [wake.wakeId], admission: true },
      isRepeatable: true,
      judge(agent, now, facts) {
        const known = facts.wakes.get(wake.wakeId);
        if (known !== undefined) {
          if (!isSame(known, contentHash, caller)) throw wakeIdTaken(wake.wakeId);
          return { kind: "done", result: { kind: "settled", agent } };
        }
        if (agent === undefined) throw agentNotFound({ agentId: wake.agentId });
        if (wake.expiresAt <= now) throw wakeExpired(now);
        if (expectedRevision !== undefined && agent.revision !== expectedRevision) {
          throw revisionMismatch(agent.revision);
        }
        const from = { wake, contentHash, principal: caller.principal, actor: caller.actor };
        return judgeNew(agent, wake, from, facts, now, limit);
      },
    });
  }

  return {
    async wake(wake, expectedRevision, caller) {
      const first = await attempt(wake, expectedRevision, caller, undefined);
      const settled = first.kind === "limited" ? await attempt(wake, expectedRevision, caller, first.limit) : first;
      if (settled.kind === "limited") throw wakesLimited(settled.limit);
      const [stored, agent] = await Promise.all([
        existing(wake.wakeId),
        settled.agent ?? retryRead(() => agents.get({ agentId: wake.agentId })),
      ]);
      return { wake: stored, agent: agent?.id === stored.agent ? agent : undefined };
    },

    async cancel(wakeId, note, caller) {
      const wake = await existing(wakeId);
      if (!caller.mayAll && wake.principal !== caller.principal) throw wakeDenied(wakeId);
      if (isTerminal(wake.state)) return wake;
      await committer.submit<void>({
        agentId: wake.agentId,
        id: wake.agent,
        actor: caller.actor,
        ...boundsOf(caller.call),
        facts: { wakeIds: [wakeId], admission: false },
        isRepeatable: true,
        judge(agent, now, facts): Verdict<void> {
          const done = { kind: "done", result: undefined } as const;
          const known = facts.wakes.get(wakeId)?.wake;
          // Deleted with its agent, or ended.
          if (agent === undefined || known === undefined || known.agent !== agent.id) return done;
          const write = cancelWrite(agent, known, note, now);
          return write === undefined ? done : { kind: "write", write, result: () => undefined };
        },
      });
      return await existing(wakeId);
    },

    get: existing,
    list: (query) => listWakes(knex, query),
    ...createPauses(database),
  };
}

/** A wake that does not exist yet, at an agent that exists. */
function judgeNew(
  agent: Agent,
  wake: NewWake,
  from: WakeWrite["from"],
  { admissions }: WakeFacts,
  now: number,
  limit: OfferLimit | undefined,
): Verdict<Attempt> {
  const admission = admissions.get(agent.id);
  // The agent was created after the read. It is judged again.
  if (admission === undefined) throw agentNotFound({ agentId: agent.agentId });
  const settled = ({ agent: after }: { readonly agent: Agent }): Attempt => ({ kind: "settled", agent: after });
  const obstacle = obstacleTo(agent, admission, undefined, now);
  const queues = wake.ifUnavailable === "queue";
  if (obstacle === undefined && limit === undefined) {
    return {
      kind: "write",
      write: offerWrite(agent, wake, from),
      result: settled,
      limited: (reached) => {
        if (!queues) throw wakesLimited(reached);
        return { kind: "limited", limit: reached };
      },
    };
  }
  if (!queues) throw obstacle?.refusal() ?? wakesLimited(limit ?? "wakesPerSecond");
  if ((agent.wakes?.queued ?? 0) >= MAX_QUEUED_WAKES) throw wakeQueueFull(agent.agentId);
  const reason = obstacle?.reason ?? "limited";
  const write: AgentUpdate = {
    kind: "update",
    agent,
    cause: "wake",
    lease: KEEP_LEASE,
    wakes: [{ wakeId: wake.wakeId, from, state: "queued", reason }],
  };
  return { kind: "write", write, result: settled };
}

/** Undefined: the wake has ended, or its agent knows of the request already. */
function cancelWrite(agent: Agent, wake: Wake, note: string, now: number): AgentUpdate | undefined {
  const { state } = wake;
  const update = (write: WakeWrite): AgentUpdate => ({
    kind: "update",
    agent,
    cause: "wake",
    ...(state === "offered" ? { status: idle() } : {}),
    lease: KEEP_LEASE,
    wakes: [{ ...write, cancelNote: note }],
  });
  switch (state) {
    case "queued":
    case "offered": {
      const write = stepOf({ ...wake, state }, "cancel", now);
      return write && update(write);
    }
    case "accepted": {
      const open = agent.wakes?.open ?? null;
      if (open?.wakeId !== wake.wakeId || open.isCancelRequested) return undefined;
      return update({ ...unchanged(open), requestsCancel: true });
    }
    default:
      return undefined;
  }
}

/** A hash of everything that makes a repetition the same request. */
export function contentHashOf(wake: NewWake): Uint8Array {
  const { payload, ...rest } = wake;
  const fields = [rest.agentId, rest.claim, rest.expiresAt, rest.ifUnavailable, rest.answerWithinMs, rest.maxOffers];
  return createHash("sha256").update(JSON.stringify(fields)).update("\0").update(payload).digest();
}

function isSame({ wake, contentHash }: StoredWake, hash: Uint8Array, { principal }: WakeCaller): boolean {
  return wake.principal === principal && Buffer.compare(contentHash, hash) === 0;
}

async function listWakes(knex: Knex, { agentId, states, newestFirst, after, limit }: WakeQuery) {
  return await readSnapshot(knex, async (snapshot) => {
    const { newest } = await readLogPosition(snapshot);
    const query = snapshot
      .from("wakes")
      .select("*")
      .orderBy("id", newestFirst ? "desc" : "asc")
      .limit(limit + 1);
    if (agentId !== undefined) query.where("agent_id", agentId);
    if (states.length > 0) query.whereRaw("state = ANY (?)", [[...states]]);
    if (after !== undefined) query.where("id", newestFirst ? "<" : ">", after.toString());
    const rows: WakeRow[] = await query;
    return { ...pageOf(rows.map(wakeFromRow), limit, ({ id }) => id), revision: newest };
  });
}
