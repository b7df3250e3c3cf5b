import { type DescField, type DescMessage, getOption, isMessage, type MessageShape } from "@bufbuild/protobuf";
import { DurationSchema, TimestampSchema } from "@bufbuild/protobuf/wkt";
import { field as fieldRules, Ignore } from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";
import { isDuration, isTimestamp, type Violations } from "../../domain/validation.ts";

/**
 * Checks what the rules rely on. A list that is too long is rejected before its items are checked, or a message of
 * invalid values would cost one violation for each. Durations and timestamps must be valid, since rules compare them
 * without a look at their parts.
 */
export type ShapeCheck = (message: object, violations: Violations) => void;

type Visit = (value: unknown, path: string, violations: Violations) => void;

/** Compiles the check of a message type. Undefined if there is nothing to check. */
export function compileShapeCheck(desc: DescMessage): ShapeCheck | undefined {
  const visit = compileMessage(desc, new Map());
  return visit && ((message, violations) => visit(message, "", violations));
}

/** `known` holds what is being compiled, so that the recursion ends at a message that contains itself. */
function compileMessage(desc: DescMessage, known: Map<string, Visit>): Visit | undefined {
  if (desc.typeName === DurationSchema.typeName) return visitBy(DurationSchema, isDuration, "must be a valid duration");
  if (desc.typeName === TimestampSchema.typeName) {
    return visitBy(TimestampSchema, isTimestamp, "must be a valid timestamp: years 1 to 9999, nanos 0 to 999999999");
  }
  const seen = known.get(desc.typeName);
  if (seen !== undefined) return seen;
  const fields: { field: DescField; visit: Visit }[] = [];
  const visitMessage: Visit = (message, path, violations) => {
    if (typeof message !== "object" || message === null) return;
    for (const { field, visit } of fields) {
      const value = fieldValue(message, field);
      if (value !== undefined) visit(value, path === "" ? field.name : `${path}.${field.name}`, violations);
    }
  };
  known.set(desc.typeName, visitMessage);
  for (const field of desc.fields) {
    const visit = compileField(field, known);
    if (visit !== undefined) fields.push({ field, visit });
  }
  return fields.length === 0 ? undefined : visitMessage;
}

function compileField(field: DescField, known: Map<string, Visit>): Visit | undefined {
  switch (field.fieldKind) {
    case "message":
      return compileMessage(field.message, known);
    case "list":
      return compileList(field, known);
    case "map":
      // No request has a map. When one does, its size has to be checked here.
      return undefined;
    default:
      return undefined;
  }
}

function compileList(field: DescField & { fieldKind: "list" }, known: Map<string, Visit>): Visit | undefined {
  const { type } = getOption(field, fieldRules);
  const rules = type.case === "repeated" ? type.value : undefined;
  const longest = rules?.maxItems;
  // The handler checks each item by itself. An invalid one does not make the message invalid.
  const ofEach = rules?.items?.ignore === Ignore.ALWAYS || field.message === undefined;
  const single = ofEach ? undefined : compileMessage(field.message, known);
  if (longest === undefined && single === undefined) return undefined;
  return (values, path, violations) => {
    if (!Array.isArray(values)) return;
    if (longest !== undefined && values.length > longest) {
      violations.add(path, `must hold at most ${longest} values`);
      return;
    }
    if (single === undefined) return;
    values.forEach((value: unknown, index) => {
      single(value, `${path}[${index}]`, violations);
    });
  };
}

function visitBy<Desc extends DescMessage>(
  desc: Desc,
  isValid: (message: MessageShape<Desc>) => boolean,
  description: string,
): Visit {
  return (value, path, violations) => {
    if (isMessage(value, desc) && !isValid(value)) violations.add(path, description);
  };
}

function fieldValue(message: object, field: DescField): unknown {
  if (field.oneof === undefined) return Reflect.get(message, field.localName);
  const chosen: unknown = Reflect.get(message, field.oneof.localName);
  if (typeof chosen !== "object" || chosen === null || Reflect.get(chosen, "case") !== field.localName)
    return undefined;
  return Reflect.get(chosen, "value");
}
