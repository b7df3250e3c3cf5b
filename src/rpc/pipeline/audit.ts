import type { DescMethod } from "@bufbuild/protobuf";
import { isMessage } from "@bufbuild/protobuf";
import { reflect } from "@bufbuild/protobuf/reflect";
import type { ProgramLog } from "../../../common/logging/logger.ts";
import { actorOf, type Principal } from "../../domain/principal.ts";
import type { Tracing } from "../../telemetry/tracing/tracing.ts";
import { methodName } from "./call-record.ts";
import type { AccessRule } from "./method-access.ts";

/** Fields that identify the subject of a change. None of them is a secret. */
const SUBJECTS = [
  "id",
  "user_id",
  "username",
  "agent_id",
  "agent_ids",
  "wake_id",
  "claw_identifier",
  "status",
  "principal",
  "role",
  "key_id",
  "request_id",
] as const;

/** Writes a line for each successful change. */
export type Audit = (method: DescMethod, principal: Principal, request: object, response: object) => void;

export interface AuditOptions {
  /** The log for audit lines. Default: the log of the replica. */
  readonly log?: ProgramLog | undefined;
  /** The calls that are audited: all changes, those that need the role admin, or none. Default: all. */
  readonly calls?: "all" | "admin" | "none";
}

/**
 * The audit log: log lines with `audit: true`. They have level info, even if the log has a higher level; a silent log has
 * none. They contain the caller (`actor` as in transitions, and the credential), the method and its subject, and the trace if
 * tracing is on.
 *
 * @param rule the access rules of the methods
 */
export function createAudit(
  log: ProgramLog,
  rule: (method: DescMethod) => AccessRule | undefined,
  { log: own = log, calls = "all" }: AuditOptions = {},
  tracing?: Tracing,
): Audit {
  if (calls === "none") return () => undefined;
  const lines = own.child({ audit: true }, own.level === "silent" ? {} : { level: "info" });
  return (method, principal, request, response) => {
    if (calls === "admin" && !needsAdmin(rule(method))) return;
    lines.info(
      {
        event: "audit.call",
        actor: actorOf(principal),
        credential: principal.credential,
        method: methodName(method),
        ...subjects(method, request),
        ...made(response),
        ...(tracing === undefined ? {} : { traceId: tracing.traceId }),
      },
      "audit",
    );
  };
}

function needsAdmin(rule: AccessRule | undefined): boolean {
  const { callers } = rule ?? {};
  return typeof callers === "object" && [...callers].every((role) => role === "admin");
}

function subjects(method: DescMethod, request: object): Record<string, unknown> {
  if (!isMessage(request, method.input)) return {};
  const fields = reflect(method.input, request);
  const found: Record<string, unknown> = {};
  for (const name of SUBJECTS) {
    const field = method.input.fields.find((one) => one.name === name);
    if (field === undefined || !fields.isSet(field)) continue;
    if (field.fieldKind === "scalar") found[field.localName] = text(fields.get(field));
    else if (field.fieldKind === "enum") found[field.localName] = field.enum.value[Number(fields.get(field))]?.name;
    else if (field.fieldKind === "list") found[field.localName] = [...fields.get(field)].map(text);
  }
  return found;
}

const text = (value: unknown): string => String(value);

/** The identity of a token that the call created, which no request can contain: its public part. */
function made(response: object): { readonly keyId?: string } {
  const token: unknown = "token" in response ? response.token : undefined;
  const named = typeof token === "object" && token !== null && "keyId" in token;
  return named && typeof token.keyId === "string" ? { keyId: token.keyId } : {};
}
