import { entries, field, text } from "./values.ts";

/** The agent that a gateway has if its configuration names none. */
const IMPLICIT_AGENT = "main";

/** The ids of the agents in a gateway's configuration, as OpenClaw normalises them. */
export function agentIdsOf(config: unknown): readonly string[] {
  const agents = field(config, "agents");
  const named = entries(field(agents, "entries")).map(([id]) => id);
  // Before 2026.9 the configuration had a list.
  const list = field(agents, "list");
  const listed = Array.isArray(list) ? list.map((agent) => text(agent, "id") ?? "") : [];
  const ids = [...named, ...listed].map((id) => id.trim().toLowerCase()).filter((id) => id !== "");
  return ids.length === 0 ? [IMPLICIT_AGENT] : [...new Set(ids)];
}

/** The agent of a session: `agent:<id>:…`. */
export function agentOfSession(sessionKey: string | undefined): string | undefined {
  return /^agent:([^:]+):/.exec(sessionKey ?? "")?.[1]?.toLowerCase();
}

/** Whether the session belongs to a phone call: `agent:<id>:voice:…`, of the voice-call plugin. */
export function isVoiceSession(sessionKey: string | undefined): boolean {
  return /^agent:[^:]+:voice:/.test(sessionKey ?? "");
}
