/** The addresses of the service, and the claw's credentials. */
export interface ClawTarget {
  readonly addresses: readonly string[];
  readonly token?: string;
  readonly tls: { readonly ca?: string[]; readonly cert?: string; readonly key?: string };
}

/** A message to a claw's process: start, or send goodbyes and stop. */
export type ClawCommand =
  | {
      readonly kind: "start";
      readonly target: ClawTarget;
      readonly clawIdentifier: string;
      readonly instanceId: string;
      readonly agentIds: readonly string[];
      readonly seed: number;
      readonly speed: number;
      readonly rateLimitShare: number;
      /** The agents whose accounts run empty. */
      readonly emptyAccounts: readonly string[];
    }
  | { readonly kind: "stop" };

/** A message of a claw's process. */
export type ClawEvent =
  | { readonly kind: "connected" }
  /** A sign of life, every `SIGN_EVERY_MS`. */
  | { readonly kind: "alive" }
  /** The service has applied a beat of each agent. */
  | { readonly kind: "beating" }
  | { readonly kind: "waiting"; readonly reason: string }
  /** The service rejected a beat, or another stream took an agent. The reason is the contract's. */
  | { readonly kind: "refused"; readonly agentId: string; readonly reason: string }
  /** The claw cannot continue. */
  | { readonly kind: "failed"; readonly reason: string; readonly exitCode: number };

/** Undefined: not a valid command. */
export function readClawCommand(message: unknown): ClawCommand | undefined {
  if (!isRecord(message)) return undefined;
  const { kind, clawIdentifier, instanceId, agentIds, seed, speed, rateLimitShare, emptyAccounts } = message;
  const target = readTarget(message.target);
  if (kind === "stop") return { kind };
  const fits =
    kind === "start" &&
    target !== undefined &&
    typeof clawIdentifier === "string" &&
    typeof instanceId === "string" &&
    isTexts(agentIds) &&
    typeof seed === "number" &&
    typeof speed === "number" &&
    typeof rateLimitShare === "number" &&
    isTexts(emptyAccounts);
  return fits
    ? { kind, target, clawIdentifier, instanceId, agentIds, seed, speed, rateLimitShare, emptyAccounts }
    : undefined;
}

function readTarget(value: unknown): ClawTarget | undefined {
  if (!isRecord(value)) return undefined;
  const { addresses, token, tls } = value;
  if (!isTexts(addresses)) return undefined;
  const { ca, cert, key } = isRecord(tls) ? tls : {};
  return {
    addresses,
    ...(typeof token === "string" ? { token } : {}),
    tls: {
      ...(isTexts(ca) ? { ca: [...ca] } : {}),
      ...(typeof cert === "string" && typeof key === "string" ? { cert, key } : {}),
    },
  };
}

/** Undefined: not a valid event. */
export function readClawEvent(message: unknown): ClawEvent | undefined {
  if (!isRecord(message)) return undefined;
  const { kind, reason, agentId, exitCode } = message;
  if (kind === "connected" || kind === "alive" || kind === "beating") return { kind };
  if (kind === "waiting" && typeof reason === "string") return { kind, reason };
  if (kind === "failed" && typeof reason === "string" && typeof exitCode === "number")
    return { kind, reason, exitCode };
  if (kind === "refused" && typeof reason === "string" && typeof agentId === "string") return { kind, reason, agentId };
  return undefined;
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null;
}

function isTexts(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((one) => typeof one === "string");
}
