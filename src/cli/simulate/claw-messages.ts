/** What a claw's process is told: what it is, or to say goodbye and end. */
export type ClawOrder =
  | {
      readonly kind: "start";
      readonly address: string;
      readonly clawIdentifier: string;
      readonly instanceId: string;
      readonly agentIds: readonly string[];
      readonly seed: number;
      readonly speed: number;
      /** The agent whose account is empty; the empty string for none. */
      readonly emptyAccount: string;
    }
  | { readonly kind: "stop" };

/** What a claw's process tells. */
export type ClawNews =
  | { readonly kind: "connected" }
  /** The service has taken in a beat of every agent. */
  | { readonly kind: "beating" }
  | { readonly kind: "waiting"; readonly reason: string }
  /** The server refused a beat, or took an agent away; the reason as the contract names it. */
  | { readonly kind: "refused"; readonly agentId: string; readonly reason: string }
  /** The claw can do nothing more. */
  | { readonly kind: "failed"; readonly reason: string };

/** Undefined for what is no order. */
export function readClawOrder(message: unknown): ClawOrder | undefined {
  if (!isRecord(message)) return undefined;
  const { kind, address, clawIdentifier, instanceId, agentIds, seed, speed, emptyAccount } = message;
  if (kind === "stop") return { kind };
  const fits =
    kind === "start" &&
    typeof address === "string" &&
    typeof clawIdentifier === "string" &&
    typeof instanceId === "string" &&
    isTexts(agentIds) &&
    typeof seed === "number" &&
    typeof speed === "number" &&
    typeof emptyAccount === "string";
  return fits ? { kind, address, clawIdentifier, instanceId, agentIds, seed, speed, emptyAccount } : undefined;
}

/** Undefined for what is no news. */
export function readClawNews(message: unknown): ClawNews | undefined {
  if (!isRecord(message)) return undefined;
  const { kind, reason, agentId } = message;
  if (kind === "connected" || kind === "beating") return { kind };
  if ((kind === "waiting" || kind === "failed") && typeof reason === "string") return { kind, reason };
  if (kind === "refused" && typeof reason === "string" && typeof agentId === "string") return { kind, reason, agentId };
  return undefined;
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null;
}

function isTexts(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((one) => typeof one === "string");
}
