/** Where many agents recover at one moment, at most this many a second do. */
export const RECOVERIES_PER_SECOND = 200;
/** However many they are, the last one waits no longer than this. */
export const LONGEST_SPREAD_MS = 10_000;

/**
 * How long after its moment an agent recovers, in milliseconds, when `sharing` agents (itself included) recover at
 * that moment. By a hash of `agent_id`, so that every replica comes to the same answer.
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
  // FNV's high bits hardly move for short texts that differ at the end ("agent-1", "agent-2"), so they are mixed.
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash ^= hash >>> 13;
  return (hash >>> 0) / 2 ** 32;
}
