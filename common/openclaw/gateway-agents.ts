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
  const ids = [...named, ...listed].map(normalized).filter((id) => id !== "");
  return ids.length === 0 ? [IMPLICIT_AGENT] : [...new Set(ids)];
}

/** The `agents` of the plugin's settings: ids of the service by ids of the gateway. `false`: the agent is not reported. */
export type AgentNames = ReadonlyMap<string, string | false>;

export function agentNamesOf(settings: unknown): AgentNames {
  const names = entries(field(settings, "agents"));
  return new Map(names.map(([id, name]) => [normalized(id), name === false ? false : String(name)]));
}

/** An agent's id in the service. Undefined for one that is not reported. Ids are unique within one gateway only, so the default has its claw. */
export function agentIdIn(claw: string, names: AgentNames, gatewayId: string): string | undefined {
  const name = names.get(gatewayId);
  return name === false ? undefined : (name ?? `${claw}/${gatewayId}`);
}

function normalized(id: string): string {
  return id.trim().toLowerCase();
}
