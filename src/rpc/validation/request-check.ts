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
 * Rejects a request that violates a rule of the contract. The rules are in the proto files.
 *
 * @throws Refusal `INVALID_FIELD` with all violations
 */
export type RequestCheck = (request: object) => void;

/**
 * Messages whose handlers check the rules without the library: a heartbeat stream sends thousands of them per second. A
 * test compares both.
 */
const CHECKED_BY_HAND: ReadonlySet<string> = new Set([HeartbeatRequestSchema.typeName]);

const patterns = new Map<string, RegExp>();

/**
 * One instance per process, since it caches what it has compiled. The patterns in our protos are short and linear, and
 * use only syntax that RE2 and JavaScript share. The library's own engine takes 68 ms for a name of a megabyte.
 */
const validator = createValidator({
  regexMatch: (pattern, text) => {
    const compiled = patterns.get(pattern) ?? new RegExp(pattern, "u");
    patterns.set(pattern, compiled);
    return compiled.test(text);
  },
});

/**
 * Compiles the check of a method's input. Undefined if there is nothing to check, or nothing to check here.
 *
 * @throws Error for rules that cannot be compiled: the program does not start with them
 */
export function compileRequestCheck(desc: DescMessage): RequestCheck | undefined {
  return CHECKED_BY_HAND.has(desc.typeName) ? undefined : compileRuleCheck(desc);
}

/** Compiles the rules of any message type. Undefined if it has none. */
export function compileRuleCheck(desc: DescMessage): RequestCheck | undefined {
  if (!hasRules(desc, new Set())) return undefined;
  const checkShape = compileShapeCheck(desc);
  // The library compiles rules at the first message. This message spares the first caller that time.
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
          // Further violations are only counted: a list of a thousand invalid values must not cost a thousand sentences.
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
