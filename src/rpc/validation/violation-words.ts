import { type DescEnum, type DescField, type DescMessage, getOption } from "@bufbuild/protobuf";
import { type Path, pathToString } from "@bufbuild/protobuf/reflect";
import type { Violation } from "@bufbuild/protovalidate";
import {
  type FieldRules,
  field as fieldRules,
  type StringRules,
} from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";

/**
 * The meaning of the patterns in the contract. A rule can have a pattern without a sentence, and the library would show
 * callers the pattern.
 */
export const PATTERN_WORDS: ReadonlyMap<string, string> = new Map([
  ["^\\P{Cc}*$", "must not hold control characters"],
  ["^[^\\x00]*$", "must not hold the character NUL"],
  [
    "^([^@\\p{Z}\\p{Cc}]+@[^@\\p{Z}\\p{Cc}]+)?$",
    "must be an address: one @ with something on either side, no spaces and no control characters",
  ],
]);

/** A field that violates a rule. */
export interface FaultyField {
  /** Its path, in the names of the proto files. */
  readonly field: string;
  /** A phrase that begins with «must». It is computed only when it is read, since it decodes the rules. */
  describe(): string;
}

/** Describes violations: one for each field, in the order in which the fields are declared. */
export function faultyFields(desc: DescMessage, violations: readonly Violation[]): FaultyField[] {
  const byField = new Map<string, { readonly path: Path; readonly violation: Violation }>();
  for (const violation of violations) {
    const path = placeOf(desc, violation);
    const field = pathToString(path);
    // Only the first violation of a field is described: a missing name is too short as well.
    if (!byField.has(field)) byField.set(field, { path, violation });
  }
  return [...byField]
    .sort(([, one], [, other]) => comparePaths(one.path, other.path))
    .map(([field, { violation }]) => ({ field, describe: () => describe(violation) }));
}

/**
 * A rule over several fields is a rule of their message. Its id begins with the name of the field at fault:
 * `exhaustion.with_exhausted`.
 */
function placeOf(desc: DescMessage, { field: path, rule, ruleId }: Violation): Path {
  const last = path.at(-1);
  if (rule.length > 0 || last?.kind === "oneof") return path;
  const field = blamedField(messageAt(desc, path), ruleId);
  return field === undefined ? path : [...path, field];
}

/** The field at fault of a rule over several fields: the one at the start of its id. */
export function blamedField(desc: DescMessage | undefined, ruleId: string): DescField | undefined {
  const [name] = ruleId.split(".", 1);
  return desc?.fields.find((field) => field.name === name);
}

function messageAt(desc: DescMessage, path: Path): DescMessage | undefined {
  const field = path.findLast((element) => element.kind === "field");
  return path.length === 0 ? desc : field?.message;
}

function describe({ field: path, ruleId, message }: Violation): string {
  const last = path.at(-1);
  if (last?.kind === "oneof") return `must be set: ${last.fields.map(({ name }) => name).join(", ")}`;
  const field = path.findLast((element) => element.kind === "field");
  if (field === undefined) return message;
  const rules = getOption(field, fieldRules);
  const text = stringRulesOf(rules);
  switch (ruleId) {
    case "required":
      return field.enum === undefined ? "must be set" : `must be set: ${namesOf(field.enum)}`;
    case "enum.defined_only":
    case "enum.not_in":
      return field.enum === undefined ? message : `must be one of ${namesOf(field.enum)}`;
    case "string.min_len":
      return text?.minLen === 1n ? `must be set: 1 to ${text.maxLen} characters` : message;
    case "string.pattern":
      return PATTERN_WORDS.get(text?.pattern ?? "") ?? message;
    default:
      return message;
  }
}

function stringRulesOf({ type }: FieldRules): StringRules | undefined {
  if (type.case === "string") return type.value;
  return type.case === "repeated" && type.value.items !== undefined ? stringRulesOf(type.value.items) : undefined;
}

/** Callers never mean UNSPECIFIED where a value is required. */
function namesOf(desc: DescEnum): string {
  return desc.values
    .filter(({ number }) => number !== 0)
    .map(({ name }) => name)
    .join(", ");
}

function comparePaths(one: Path, other: Path): number {
  for (const [index, element] of one.entries()) {
    const against = other[index];
    if (against === undefined) return 1;
    const difference = orderOf(element) - orderOf(against);
    if (difference !== 0) return difference;
  }
  return one.length - other.length;
}

function orderOf(element: Path[number]): number {
  switch (element.kind) {
    case "field":
    case "extension":
      return element.number;
    case "oneof":
      return element.fields[0]?.number ?? 0;
    case "list_sub":
      return element.index;
    case "map_sub":
      return 0;
  }
}
