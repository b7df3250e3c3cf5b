/** At most this many agents recover in a second when many are due at the same moment. */
export const RECOVERIES_PER_SECOND = 200;
/** The longest delay, for any number of agents, in milliseconds. */
export const LONGEST_SPREAD_MS = 10_000;

/**
 * How many milliseconds after `recoveryAt` an agent recovers. It depends on a hash of `agent_id`, so that all replicas
 * compute the same delay.
 *
 * @param sharing agents that recover at the same moment, this one included
 */
export function recoveryDelayMs(agentId: string, sharing: number): number {
  const spreadMs = Math.min(LONGEST_SPREAD_MS, (sharing / RECOVERIES_PER_SECOND) * 1_000);
  return Math.floor(spreadMs * unitHash(agentId));
}

/** FNV-1a over UTF-16 units with a final mix, mapped to [0, 1). See http://www.isthe.com/chongo/tech/comp/fnv/ */
function unitHash(text: string): number {
  let hash = 0x811c9dc5;
  for (let index = 0; index < text.length; index++) {
    hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
  }
  // The final mix spreads short texts that differ only at the end ("agent-1", "agent-2"): FNV barely changes its high
  // bits for them.
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash ^= hash >>> 13;
  return (hash >>> 0) / 2 ** 32;
}
