import type { DescEnum, DescField, DescMessage } from "@bufbuild/protobuf";
import { DurationSchema, hasCustomJsonRepresentation, TimestampSchema } from "@bufbuild/protobuf/wkt";
import { readFields, type Violations } from "../../domain/validation.ts";
import { noSuchValue } from "../errors/library-errors.ts";
import { durationFault, type JsonRule, scalarRule, timestampFault } from "./values.ts";

/**
 * Rejects JSON that is not a message of a type. The error has the path of each fault, in the names of the proto files.
 * Protobuf-es would reject most of it too, but it names only the innermost field. It also accepts values that are
 * probably mistakes: `"0x3"` as 3, `"1s1"` as one second, the 30th of February as the 2nd of March.
 *
 * Enum numbers outside of the contract are left to the check that binary messages get as well.
 */
export type JsonCheck = (json: unknown) => void;

type Visit = (value: unknown, path: string, violations: Violations) => void;

/** The check that is returned throws Refusal `INVALID_FIELD`. */
export function compileJsonCheck(desc: DescMessage): JsonCheck {
  const visit = compileMessage(desc, new Map());
  return (json) => {
    if (visit !== undefined) readFields((violations) => visit(json, "", violations));
  };
}

/** `known` holds what is being compiled, so that the recursion ends at a message that contains itself. */
function compileMessage(desc: DescMessage, known: Map<string, Visit>): Visit | undefined {
  if (desc.typeName === DurationSchema.typeName) return visitBy(durationFault);
  if (desc.typeName === TimestampSchema.typeName) return visitBy(timestampFault);
  // Any, Struct and similar types have JSON forms of their own, which the library checks. Our requests have none of them.
  if (hasCustomJsonRepresentation(desc)) return undefined;
  const seen = known.get(desc.typeName);
  if (seen !== undefined) return seen;
  const fields = new Map<string, { field: DescField; visit: Visit | undefined }>();
  const visitMessage: Visit = (message, path, violations) => {
    if (typeof message !== "object" || message === null || Array.isArray(message)) {
      violations.add(path, "must be an object");
      return;
    }
    const given = new Set<unknown>();
    for (const [key, value] of Object.entries(message)) {
      const entry = fields.get(key);
      if (entry === undefined) {
        violations.add(join(path, key), `must not be there: ${desc.name} has no such field`);
        continue;
      }
      const { field, visit } = entry;
      const place = join(path, field.name);
      if (given.has(field)) violations.add(place, "must be given once: both of its names are present");
      given.add(field);
      // Null counts as absent. The library treats it as a value only in a oneof of messages.
      if (field.oneof !== undefined && (value !== null || field.fieldKind === "message")) {
        if (given.has(field.oneof)) {
          const names = field.oneof.fields.map(({ name }) => name).join(", ");
          violations.add(join(path, field.oneof.name), `must be one alone: ${names}`);
        }
        given.add(field.oneof);
      }
      if (value !== null) visit?.(value, place, violations);
    }
  };
  known.set(desc.typeName, visitMessage);
  for (const field of desc.fields) {
    const entry = { field, visit: compileField(field, known) };
    fields.set(field.name, entry).set(field.jsonName, entry);
  }
  return visitMessage;
}

function compileField(field: DescField, known: Map<string, Visit>): Visit | undefined {
  const single = compileValue(field, known);
  switch (field.fieldKind) {
    case "list":
      return (values, path, violations) => {
        if (!Array.isArray(values)) return violations.add(path, "must be a list");
        return values.forEach((value: unknown, index) => {
          single?.(value, `${path}[${index}]`, violations);
        });
      };
    case "map":
      return (values, path, violations) => {
        if (typeof values !== "object" || Array.isArray(values)) return violations.add(path, "must be an object");
        for (const [key, value] of Object.entries(values ?? {}))
          single?.(value, `${path}[${JSON.stringify(key)}]`, violations);
      };
    default:
      return single;
  }
}

function compileValue(field: DescField, known: Map<string, Visit>): Visit | undefined {
  if (field.enum !== undefined) return visitBy(enumRule(field.enum));
  if (field.message !== undefined) return compileMessage(field.message, known);
  const rule = field.scalar === undefined ? undefined : scalarRule(field.scalar);
  return rule === undefined ? undefined : visitBy(rule);
}

function visitBy(rule: JsonRule): Visit {
  return (value, path, violations) => {
    const fault = rule(value);
    if (fault !== undefined) violations.add(path, fault);
  };
}

function enumRule(desc: DescEnum): JsonRule {
  const names = new Set(desc.values.map(({ name }) => name));
  return (value) => {
    if (typeof value === "string" ? names.has(value) : isInt32(value)) return undefined;
    return noSuchValue(desc, JSON.stringify(value).slice(0, 100));
  };
}

function isInt32(value: unknown): boolean {
  return typeof value === "number" && value === Math.trunc(value) && Math.abs(value) < 2 ** 31;
}

function join(path: string, name: string): string {
  return path === "" ? name : `${path}.${name}`;
}
