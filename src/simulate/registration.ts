import { type AgentView, CallError } from "harborforge-agents-client";
import { createRetryPause } from "harborforge-agents-client/internal";
import { pause } from "../../common/scheduling/timers.ts";
import { type Caller, createUser, deleteUser, listAgents } from "../cli/calls/service-calls.ts";
import type { ClawPlan } from "./fleet-plan.ts";
import { ensureAgent } from "./service-calls.ts";

/** Calls at the same time. */
const CONCURRENT_CALLS = 32;
const LARGEST_PAGE = 1_000;
const MAX_ATTEMPTS = 5;
/** Codes of temporary failures. */
const TEMPORARY: ReadonlySet<string> = new Set(["UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"]);

type RegisteredAgent = Pick<AgentView, "agentId" | "userId" | "clawIdentifier">;

/**
 * Makes sure that all users and agents exist. Uses those of an earlier run again.
 *
 * @param onProgress called with the number of existing agents
 * @throws CallError
 */
export async function ensureFleet(
  caller: Caller,
  plans: readonly ClawPlan[],
  onProgress: (done: number) => void,
): Promise<void> {
  const missing = new Map(
    plans.flatMap(({ name, agentIds }) => agentIds.map((agentId) => [agentId, { agentId, clawIdentifier: name }])),
  );
  const all = missing.size;
  for await (const { agentId, clawIdentifier } of present(caller, plans)) {
    if (missing.get(agentId)?.clawIdentifier === clawIdentifier) missing.delete(agentId);
  }
  onProgress(all - missing.size);
  await forEachConcurrently([...missing.values()], async (plan) => {
    await withRetries(() => ensureOne(caller, plan), caller.signal);
    missing.delete(plan.agentId);
    onProgress(all - missing.size);
  });
}

async function deleteOne(caller: Caller, userId: bigint): Promise<void> {
  try {
    await deleteUser(caller, userId);
  } catch (error) {
    // An earlier attempt whose response was lost has deleted it.
    if (!(error instanceof CallError) || error.code !== "NOT_FOUND") throw error;
  }
}

async function ensureOne(
  caller: Caller,
  agent: { readonly agentId: string; readonly clawIdentifier: string },
): Promise<void> {
  const user = { username: agent.agentId, displayName: `Simulated agent ${agent.agentId}` };
  try {
    await createUser(caller, { ...user, agent });
  } catch (error) {
    if (!(error instanceof CallError) || error.code !== "ALREADY_EXISTS") throw error;
    // The user exists without the agent, or the agent exists on another claw.
    await ensureAgent(caller.clients, { ...user, ...agent }, caller.signal);
  }
}

/** Retries temporary failures: thousands of calls at the same time may exceed the service's limits. */
async function withRetries(work: () => Promise<void>, signal: AbortSignal | undefined): Promise<void> {
  const retry = createRetryPause();
  for (let left = MAX_ATTEMPTS; ; left -= 1) {
    try {
      return await work();
    } catch (error) {
      const isTemporary = error instanceof CallError && TEMPORARY.has(error.code);
      if (!isTemporary || left <= 1 || signal?.aborted === true) throw error;
      await pause(retry.next(error.retryAfterMs), signal ?? new AbortController().signal);
    }
  }
}

/**
 * Deletes the users of these agents, and the agents with them.
 *
 * @throws CallError
 */
export async function deleteFleet(
  caller: Caller,
  agents: readonly RegisteredAgent[],
  onProgress: (done: number) => void,
): Promise<void> {
  let done = 0;
  await forEachConcurrently(agents, async ({ userId }) => {
    await withRetries(() => deleteOne(caller, userId), caller.signal);
    done += 1;
    onProgress(done);
  });
}

async function* present(caller: Caller, plans: readonly ClawPlan[]): AsyncGenerator<RegisteredAgent, void> {
  const filter = { clawIdentifiers: plans.map(({ name }) => name) };
  let pageToken = "";
  do {
    const page = await listAgents(caller, { filter, pageSize: LARGEST_PAGE, pageToken });
    yield* page.items;
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
}

async function forEachConcurrently<Item>(items: readonly Item[], work: (item: Item) => Promise<void>): Promise<void> {
  const waiting = items.values();
  const worker = async (): Promise<void> => {
    for (const item of waiting) await work(item);
  };
  await Promise.all(Array.from({ length: CONCURRENT_CALLS }, worker));
}
