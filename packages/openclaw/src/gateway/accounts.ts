import { entries, field, number, text } from "../../../../common/openclaw/values.ts";
import type { Refusal } from "../activity/signal.ts";

/** The providers that an agent may use: of its model and of the fallbacks, in their order. */
export function providersOf(config: unknown, agentId: string): readonly string[] {
  const agents = field(config, "agents");
  const own = field(field(field(agents, "entries"), agentId), "model");
  const shared = field(field(agents, "defaults"), "model");
  const names = [...modelsOf(own ?? shared)].map((name) => name.slice(0, Math.max(0, name.indexOf("/"))));
  return [...new Set(names.filter((name) => name !== ""))];
}

function modelsOf(model: unknown): string[] {
  if (typeof model === "string") return [model];
  const fallbacks = field(model, "fallbacks");
  const all = [field(model, "primary"), ...(Array.isArray(fallbacks) ? fallbacks : [])];
  return all.filter((name) => typeof name === "string");
}

/**
 * The exhaustion that the cooldowns of an agent's accounts show. The gateway stores them by profile; a key in the configuration has
 * the profile `inline-api-key:<provider>`. Read them only after the gateway failed a run: an old cooldown of a key that is not in
 * use any more would mislead.
 *
 * @param store the agent's auth store
 * @returns the earliest end. Undefined if an account is free, or if none is unusable for lack of quota or money
 */
export function exhaustionOfAccounts(store: unknown, providers: readonly string[], now: number): Refusal | undefined {
  const usage = field(store, "usageStats");
  const profiles = entries(field(store, "profiles"));
  let earliest: (Refusal & { readonly until: number }) | undefined;
  for (const provider of providers) {
    const own = profiles.filter(([, profile]) => text(profile, "provider") === provider).map(([id]) => id);
    for (const id of own.length === 0 ? [`inline-api-key:${provider}`] : own) {
      const stats = field(usage, id);
      const until = Math.max(0, ...UNTIL_FIELDS.map((name) => number(stats, name) ?? 0));
      if (until <= now) return undefined;
      const reason = reasonOf(stats, until);
      if (reason === undefined || (earliest !== undefined && earliest.until <= until)) continue;
      earliest = { reason, until, evidence: `gateway: cooldown of ${id}` };
    }
  }
  return earliest;
}

const UNTIL_FIELDS = ["cooldownUntil", "disabledUntil", "blockedUntil"] as const;

function reasonOf(stats: unknown, until: number): Refusal["reason"] | undefined {
  if (until === number(stats, "blockedUntil")) return "rate_limit";
  const name = until === number(stats, "disabledUntil") ? "disabledReason" : "cooldownReason";
  const reason = text(stats, name);
  return reason === "rate_limit" || reason === "billing" ? reason : undefined;
}
