import { type AgentView, CallError } from "harborforge-agents-client";
import { createRetryPause } from "harborforge-agents-client/internal";
import { ensureAgent } from "../cli/calls/agent-calls.ts";
import { type Caller, createUser, deleteUser, listAgents } from "../cli/calls/directory-calls.ts";
import { pause } from "../scheduling/timers.ts";

/** Calls under way at the same time: a small fleet is quick anyway, and a large one is not to wait for itself. */
const AT_ONCE = 32;
const LARGEST_PAGE = 1_000;
const MOST_TRIES = 5;
/** What is over when one waits a little. */
const PASSING: ReadonlySet<string> = new Set(["UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"]);

export interface ClawPlan {
  readonly name: string;
  readonly agentIds: readonly string[];
}

/** The claws and their agents, by the same names at each run; the agents are dealt out evenly. */
export function planFleet(names: string, claws: number, agents: number): ClawPlan[] {
  const digits = Math.max(2, String(Math.ceil(agents / claws)).length);
  return Array.from({ length: claws }, (_, place) => {
    const name = `${names}-claw-${clawSuffix(place, claws)}`;
    const size = Math.floor(agents / claws) + (place < agents % claws ? 1 : 0);
    const agentIds = Array.from({ length: size }, (_, index) => `${name}-${String(index + 1).padStart(digits, "0")}`);
    return { name, agentIds };
  });
}

/** Letters as long as they last. */
function clawSuffix(place: number, claws: number): string {
  if (claws <= 26) return String.fromCodePoint("a".charCodeAt(0) + place);
  return String(place + 1).padStart(String(claws).length, "0");
}

/**
 * Sees to it that all users and agents are there, adopting those of an earlier run.
 *
 * @param onProgress how many are there so far
 * @throws CallError
 */
export async function enrol(
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
  await atOnce([...missing.values()], async (plan) => {
    await persistently(() => enrolOne(caller, plan), caller.signal);
    missing.delete(plan.agentId);
    onProgress(all - missing.size);
  });
}

async function dismissOne(caller: Caller, userId: bigint): Promise<void> {
  try {
    await deleteUser(caller, userId);
  } catch (error) {
    // Deleted already, by an earlier try whose answer was lost.
    if (!(error instanceof CallError) || error.code !== "NOT_FOUND") throw error;
  }
}

async function enrolOne(
  caller: Caller,
  agent: { readonly agentId: string; readonly clawIdentifier: string },
): Promise<void> {
  const user = { username: agent.agentId, displayName: `Simulated agent ${agent.agentId}` };
  try {
    await createUser(caller, { ...user, agent });
  } catch (error) {
    if (!(error instanceof CallError) || error.code !== "ALREADY_EXISTS") throw error;
    // Half of it is there: the user without the agent, or the agent on another claw.
    await ensureAgent(caller.clients, { ...user, ...agent }, caller.signal);
  }
}

/** Thousands of calls at once may be more than a service answers in time; each is made again, as it is wanted anyway. */
async function persistently(work: () => Promise<void>, signal: AbortSignal | undefined): Promise<void> {
  const retry = createRetryPause();
  for (let left = MOST_TRIES; ; left -= 1) {
    try {
      return await work();
    } catch (error) {
      const passes = error instanceof CallError && PASSING.has(error.code);
      if (!passes || left <= 1 || signal?.aborted === true) throw error;
      await pause(retry.next(error.retryAfterMs), signal ?? new AbortController().signal);
    }
  }
}

/** Deletes the users of these agents, and the agents with them. @throws CallError */
export async function dismiss(
  caller: Caller,
  agents: readonly AgentView[],
  onProgress: (done: number) => void,
): Promise<void> {
  let done = 0;
  await atOnce(agents, async ({ userId }) => {
    await persistently(() => dismissOne(caller, userId), caller.signal);
    done += 1;
    onProgress(done);
  });
}

async function* present(caller: Caller, plans: readonly ClawPlan[]): AsyncGenerator<AgentView, void> {
  const filter = { clawIdentifiers: plans.map(({ name }) => name) };
  let pageToken = "";
  do {
    const page = await listAgents(caller, { filter, pageSize: LARGEST_PAGE, pageToken });
    yield* page.items;
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
}

async function atOnce<Item>(items: readonly Item[], work: (item: Item) => Promise<void>): Promise<void> {
  const waiting = items.values();
  const worker = async (): Promise<void> => {
    for (const item of waiting) await work(item);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}
