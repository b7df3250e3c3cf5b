import { create, type DescField, type DescMessage, hasOption, isMessage } from "@bufbuild/protobuf";
import { createValidator } from "@bufbuild/protovalidate";
import {
  field as fieldRules,
  message as messageRules,
  oneof as oneofRules,
} from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";
import { HeartbeatRequestSchema } from "../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { MAX_VIOLATIONS, readFields } from "../../domain/validation.ts";
import { compileShapeCheck } from "./shape-check.ts";
import { faultyFields } from "./violation-words.ts";

/**
 * Refuses a request that breaks a rule of the contract: those that stand in the proto files.
 *
 * @throws Refusal `INVALID_FIELD`, with all that is wrong
 */
export type RequestCheck = (request: object) => void;

/**
 * Messages whose handlers do by hand what their rules say: a heartbeat stream carries thousands of them a second. A test
 * holds both against each other.
 */
const CHECKED_BY_HAND: ReadonlySet<string> = new Set([HeartbeatRequestSchema.typeName]);

const patterns = new Map<string, RegExp>();

/**
 * One for the process: it keeps what it has compiled. The patterns are those of our protos, short and linear, written in
 * what RE2 and JavaScript have in common; the library's own engine takes 68 ms for a name of a megabyte.
 */
const validator = createValidator({
  regexMatch: (pattern, text) => {
    const compiled = patterns.get(pattern) ?? new RegExp(pattern, "u");
    patterns.set(pattern, compiled);
    return compiled.test(text);
  },
});

/**
 * Compiles the check of what a method takes; undefined when there is nothing to check, or nothing to check here.
 *
 * @throws Error for rules that cannot be compiled: the program does not start with them
 */
export function compileRequestCheck(desc: DescMessage): RequestCheck | undefined {
  return CHECKED_BY_HAND.has(desc.typeName) ? undefined : compileRuleCheck(desc);
}

/** Compiles the rules of any message type; undefined when it has none. */
export function compileRuleCheck(desc: DescMessage): RequestCheck | undefined {
  if (!hasRules(desc, new Set())) return undefined;
  const checkShape = compileShapeCheck(desc);
  // Rules are compiled with the first message: this one, so that no caller waits for it.
  const rehearsal = validator.validate(desc, create(desc));
  if (rehearsal.kind === "error") throw rehearsal.error;
  return (request) => {
    if (!isMessage(request, desc)) throw new TypeError(`not a ${desc.typeName}`);
    if (checkShape !== undefined) readFields((violations) => checkShape(request, violations));
    const result = validator.validate(desc, request);
    switch (result.kind) {
      case "valid":
        return;
      case "error":
        throw result.error;
      case "invalid":
        readFields((violations) => {
          const faulty = faultyFields(desc, result.violations);
          // The rest is counted, not told: a list of a thousand bad values must not cost a thousand sentences.
          for (const [index, { field, describe }] of faulty.entries()) {
            violations.add(field, index < MAX_VIOLATIONS ? describe() : "");
          }
        });
    }
  };
}

/** `seen` ends the recursion at messages that contain themselves. */
function hasRules(desc: DescMessage, seen: Set<string>): boolean {
  if (seen.has(desc.typeName)) return false;
  seen.add(desc.typeName);
  return (
    hasOption(desc, messageRules) ||
    desc.oneofs.some((oneof) => hasOption(oneof, oneofRules)) ||
    desc.fields.some((field) => hasFieldRules(field, seen))
  );
}

function hasFieldRules(field: DescField, seen: Set<string>): boolean {
  return hasOption(field, fieldRules) || (field.message !== undefined && hasRules(field.message, seen));
}
