import { ensureAgent } from "../../client/agent-calls.ts";
import { type Caller, deleteUser, listAgents } from "../../client/directory-calls.ts";
import type { AgentView } from "../../client/views.ts";

/** Calls under way at the same time: a small fleet is quick anyway, and a large one is not to wait for itself. */
const AT_ONCE = 32;
const LARGEST_PAGE = 1_000;

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
    const { agentId } = plan;
    const registration = { ...plan, username: agentId, displayName: `Simulated agent ${agentId}` };
    await ensureAgent(caller.clients, registration, caller.signal);
    missing.delete(agentId);
    onProgress(all - missing.size);
  });
}

/** Deletes the users of these agents, and the agents with them. @throws CallError */
export async function dismiss(
  caller: Caller,
  agents: readonly AgentView[],
  onProgress: (done: number) => void,
): Promise<void> {
  let done = 0;
  await atOnce(agents, async ({ userId }) => {
    await deleteUser(caller, userId);
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
