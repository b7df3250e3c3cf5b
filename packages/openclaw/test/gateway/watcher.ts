import { type AgentStatus, type TransitionView, watchAgents } from "harborforge-agents-client";
import { until } from "../../../../test/support/until.ts";

/** Longer than a cold start of a turn takes on a loaded machine. */
const WITHIN_MS = 120_000;

/** What a watcher of the service sees of the agents. */
export interface Watcher extends AsyncDisposable {
  readonly transitions: readonly TransitionView[];
  /** The statuses that an agent got since an index of `transitions`. */
  statuses(agentId: string, since?: number): readonly TransitionView["to"][];
  /** Waits for a transition of an agent. */
  sees(agentId: string, to: AgentStatus, since?: number): Promise<TransitionView>;
}

export async function startWatcher(addresses: readonly string[]): Promise<Watcher> {
  const transitions: TransitionView[] = [];
  const stop = new AbortController();
  let isReady = false;
  const reading = (async () => {
    for await (const event of watchAgents({ addresses, signal: stop.signal })) {
      if (event.kind === "snapshot") isReady = true;
      if (event.kind === "changes") transitions.push(...event.changes.map(({ transition }) => transition));
    }
  })().catch(() => undefined);
  await until("the watch begins", () => isReady);
  return {
    transitions,
    statuses: (agentId, since = 0) =>
      transitions.slice(since).flatMap((one) => (one.agentId === agentId ? [one.to] : [])),
    sees: (agentId, to, since = 0) =>
      until(
        `${agentId} becomes ${to}`,
        () => transitions.slice(since).find((one) => one.agentId === agentId && one.to === to),
        WITHIN_MS,
      ),
    async [Symbol.asyncDispose]() {
      stop.abort();
      await reading;
    },
  };
}

/** The time from a transition to its recovery, in milliseconds. */
export function recoveryWithin({ exhaustion, occurredAt }: TransitionView): number {
  return (exhaustion?.recoveryAt?.getTime() ?? 0) - occurredAt.getTime();
}
