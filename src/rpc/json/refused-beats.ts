import { randomUUID } from "node:crypto";
import { type FieldViolation, Refusal } from "../../domain/errors.ts";
import { shorten } from "../errors/error-table.ts";

/**
 * Begins the `agent_id` of a stand-in. Names must not hold control characters, so no agent has such an id. The random part is
 * unknown to callers, so they cannot write a stand-in.
 */
const MARK = `\u0000${randomUUID()}`;

/** Violations of one beat that its error names. */
const MAX_NAMED = 4;

/**
 * A stand-in for a beat that is not a message of its type. The reader of protobuf's JSON would reject the whole request. So the
 * stand-in carries the violations through that reader, in its `agent_id`, and `refusedBeat` finds them.
 *
 * @param agentId as the caller wrote it, or empty
 */
export function standInFor(agentId: string, violations: readonly FieldViolation[]): { agentId: string } {
  const named = violations.slice(0, MAX_NAMED).map(({ field, description }) => ({
    field: shorten(field, 200),
    description: shorten(description, 200),
  }));
  return { agentId: `${MARK}${JSON.stringify([agentId, named, violations.length - named.length])}` };
}

/** The refusal that a stand-in carries; undefined for any other beat. */
export function refusedBeat(agentId: string): { readonly agentId: string; readonly refusal: Refusal } | undefined {
  if (agentId.charCodeAt(0) !== 0 || !agentId.startsWith(MARK)) return undefined;
  const [given, violations, more]: [string, FieldViolation[], number] = JSON.parse(agentId.slice(MARK.length));
  const sentences = violations.map(({ field, description }) => `${field}: ${description}`);
  if (more > 0) sentences.push(`and ${more} more`);
  return { agentId: given, refusal: new Refusal("INVALID_FIELD", sentences.join("; "), { violations }) };
}
