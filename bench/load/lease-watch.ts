// Watchers of the whole fleet, which record expired leases and when they learned of them.
import { createServiceClients } from "harborforge-agents-client";
import { exactViews, watchAs } from "harborforge-agents-client/internal";
import { doJobs } from "../harness/jobs.ts";

/** Instants in microseconds since 1970. */
export interface SeenEnd {
  readonly agentId: string;
  /** The time of the transition in PostgreSQL. */
  readonly committedAt: number;
  readonly knownAt: number;
}

let seen: SeenEnd[] = [];

async function follow(address: string, onReady: () => void): Promise<void> {
  for await (const event of watchAs(exactViews, createServiceClients({ address }), {})) {
    const knownAt = (performance.timeOrigin + performance.now()) * 1_000;
    if (event.kind === "snapshot") onReady();
    if (event.kind !== "changes") continue;
    for (const { agent, transition } of event.changes) {
      if (transition.cause !== "lease_expired") continue;
      seen.push({ agentId: agent.agentId, committedAt: transition.occurredAt, knownAt });
    }
  }
}

doJobs({
  open: async ({ address, watchers }: { address: string; watchers: number }) => {
    const ready = Array.from({ length: watchers }, () => {
      const known = Promise.withResolvers<void>();
      follow(address, known.resolve).catch(known.reject);
      return known.promise;
    });
    await Promise.all(ready);
    return {};
  },
  take: async () => {
    const ends = seen;
    seen = [];
    return { ends };
  },
});
