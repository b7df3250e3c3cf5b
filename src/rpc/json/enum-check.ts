import type { DescEnum, DescField, DescMessage } from "@bufbuild/protobuf";
import { AgentBeatSchema } from "../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { type FieldViolation, Refusal } from "../../domain/errors.ts";
import { noSuchValue } from "../doors/library-errors.ts";

/**
 * Refuses enum numbers outside the contract. Proto3 enums are open: binary takes any number, and JSON does too. The
 * contract does not, since a status that nobody knows would be stored or, worse, filter for nothing.
 */
export type EnumCheck = (message: object) => void;

/** Messages that a handler judges one by one, so that a bad one does not take its neighbours with it. */
const JUDGED_ONE_BY_ONE: ReadonlySet<string> = new Set([AgentBeatSchema.typeName]);

const MAX_VIOLATIONS = 20;

type Visit = (value: unknown, path: string, violations: FieldViolation[]) => void;

/**
 * Compiles the check of a message type. Undefined when no enum can occur in it: most requests, heartbeats among them,
 * then pay nothing.
 */
export function compileEnumCheck(desc: DescMessage): EnumCheck | undefined {
  const visit = compileMessage(desc, new Map());
  if (visit === undefined) return undefined;
  return (message) => {
    const violations: FieldViolation[] = [];
    visit(message, "", violations);
    const [first] = violations;
    if (first !== undefined) {
      throw new Refusal("INVALID_FIELD", `${first.field}: ${first.description}`, { violations });
    }
  };
}

/** `known` holds what is being compiled, so that a message that contains itself ends the recursion. */
function compileMessage(desc: DescMessage, known: Map<string, Visit>): Visit | undefined {
  if (JUDGED_ONE_BY_ONE.has(desc.typeName) || !reachesEnum(desc, new Set())) return undefined;
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
  return visitMessage;
}

function compileField(field: DescField, known: Map<string, Visit>): Visit | undefined {
  const single = compileValue(field, known);
  if (single === undefined) return undefined;
  switch (field.fieldKind) {
    case "list":
      return (values, path, violations) => {
        if (!Array.isArray(values)) return;
        values.forEach((value: unknown, index) => {
          single(value, `${path}[${index}]`, violations);
        });
      };
    case "map":
      return (values, path, violations) => {
        if (typeof values !== "object" || values === null) return;
        for (const [key, value] of Object.entries(values)) single(value, `${path}[${JSON.stringify(key)}]`, violations);
      };
    default:
      return single;
  }
}

function compileValue(field: DescField, known: Map<string, Visit>): Visit | undefined {
  if (field.enum !== undefined) return visitEnum(field.enum);
  if (field.message !== undefined) return compileMessage(field.message, known);
  return undefined;
}

function visitEnum(desc: DescEnum): Visit {
  return (value, field, violations) => {
    if (typeof value !== "number" || desc.value[value] !== undefined || violations.length >= MAX_VIOLATIONS) return;
    violations.push({ field, description: noSuchValue(desc, String(value)) });
  };
}

function reachesEnum(desc: DescMessage, seen: Set<string>): boolean {
  if (JUDGED_ONE_BY_ONE.has(desc.typeName) || seen.has(desc.typeName)) return false;
  seen.add(desc.typeName);
  return desc.fields.some(
    (field) => field.enum !== undefined || (field.message !== undefined && reachesEnum(field.message, seen)),
  );
}

function fieldValue(message: object, field: DescField): unknown {
  if (field.oneof === undefined) return Reflect.get(message, field.localName);
  const chosen: unknown = Reflect.get(message, field.oneof.localName);
  if (typeof chosen !== "object" || chosen === null || Reflect.get(chosen, "case") !== field.localName)
    return undefined;
  return Reflect.get(chosen, "value");
}
