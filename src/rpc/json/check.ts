import type { DescEnum, DescField, DescMessage } from "@bufbuild/protobuf";
import { DurationSchema, hasCustomJsonRepresentation, TimestampSchema } from "@bufbuild/protobuf/wkt";
import { AgentBeatSchema } from "../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import type { FieldViolation } from "../../domain/errors.ts";
import { MAX_BEATS, MAX_VIOLATIONS, readFields, type Violations } from "../../domain/validation.ts";
import { didYouMean } from "../errors/did-you-mean.ts";
import { noSuchValue } from "../errors/library-errors.ts";
import { standInFor } from "./refused-beats.ts";
import { durationFault, type JsonRule, scalarRule, timestampFault } from "./values.ts";

/**
 * Rejects JSON that is not a message of a type. The error has the path of each fault, with the names that the caller wrote.
 * Protobuf-es would reject most of it too, but it names only the innermost field. It also accepts values that are
 * probably mistakes: `"0x3"` as 3, `"1s1"` as one second, the 30th of February as the 2nd of March.
 *
 * Enum numbers outside of the contract are left to the check that binary messages get as well.
 *
 * Changes the JSON where the contract is milder than the library, and returns whether it did: nulls in a oneof count as absent,
 * and a stand-in replaces a beat with a fault (`refused-beats.ts`).
 */
export type JsonCheck = (json: unknown) => boolean;

/** What a check found in one JSON value. */
interface Findings extends Violations {
  /** Notes that the JSON was changed. */
  change(): void;
  /** Whether an unknown field may still get a suggestion: a message may have thousands of them. */
  maySuggest(): boolean;
}

type Visit = (value: unknown, path: string, findings: Findings) => void;

/** The check that is returned throws Refusal `INVALID_FIELD`. */
export function compileJsonCheck(desc: DescMessage): JsonCheck {
  const visit = compileMessage(desc, new Map());
  return (json) => {
    if (visit === undefined) return false;
    let changed = false;
    let suggestions = 0;
    const change = (): void => {
      changed = true;
    };
    const maySuggest = (): boolean => {
      suggestions += 1;
      return suggestions <= MAX_VIOLATIONS;
    };
    readFields(({ add }) => visit(json, "", { add, change, maySuggest }));
    return changed;
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
  const visitMessage: Visit = (message, path, findings) => {
    if (typeof message !== "object" || message === null || Array.isArray(message)) {
      findings.add(path, "must be an object");
      return;
    }
    const given = new Map<unknown, string>();
    for (const [key, value] of Object.entries(message)) {
      const entry = fields.get(key);
      const place = join(path, key);
      if (entry === undefined) {
        findings.add(place, unknownField(desc, key, findings));
        continue;
      }
      const { field, visit } = entry;
      if (given.has(field)) findings.add(place, "must be given once: both of its names are present");
      given.set(field, key);
      if (value === null) {
        if (field.oneof === undefined) continue;
        // Null counts as absent. The library takes it for a value if the field is not a scalar.
        Reflect.deleteProperty(message, key);
        findings.change();
        continue;
      }
      const other = field.oneof && given.get(field.oneof);
      if (other !== undefined) findings.add(place, notTogether(field, other));
      if (field.oneof !== undefined) given.set(field.oneof, key);
      visit?.(value, place, findings);
    }
  };
  known.set(desc.typeName, visitMessage);
  for (const field of desc.fields) {
    const entry = { field, visit: compileField(field, known) };
    fields.set(field.name, entry).set(field.jsonName, entry);
  }
  return visitMessage;
}

function unknownField(desc: DescMessage, key: string, findings: Findings): string {
  const names = desc.fields.map(({ jsonName }) => jsonName);
  return `must not be there: ${desc.name} has no such field${findings.maySuggest() ? didYouMean(key, names) : ""}`;
}

function notTogether({ oneof }: DescField, other: string): string {
  const names = (oneof?.fields ?? []).map(({ jsonName }) => jsonName);
  return `must not be set together with ${other}: set one of ${names.join(", ")}`;
}

function compileField(field: DescField, known: Map<string, Visit>): Visit | undefined {
  const single = compileValue(field, known);
  switch (field.fieldKind) {
    case "list": {
      const visitItem = single !== undefined && field.message?.typeName === AgentBeatSchema.typeName;
      const visitItems = visitItem ? visitBeats(single) : visitEach(single);
      return (values, path, findings) => {
        if (!Array.isArray(values)) return findings.add(path, "must be a list");
        visitItems(values, path, findings);
      };
    }
    case "map":
      return (values, path, findings) => {
        if (typeof values !== "object" || Array.isArray(values)) return findings.add(path, "must be an object");
        for (const [key, value] of Object.entries(values ?? {}))
          single?.(value, `${path}[${JSON.stringify(key)}]`, findings);
      };
    default:
      return single;
  }
}

type VisitItems = (values: unknown[], path: string, findings: Findings) => void;

function visitEach(visit: Visit | undefined): VisitItems {
  return (values, path, findings) =>
    values.forEach((value, index) => {
      visit?.(value, `${path}[${index}]`, findings);
    });
}

/** A beat with a fault is rejected alone. So it gets a stand-in, and the others are read. */
function visitBeats(visit: Visit): VisitItems {
  return (values, path, findings) => {
    if (values.length > MAX_BEATS) {
      findings.add(path, `must hold at most ${MAX_BEATS} values`);
      return;
    }
    for (const [index, value] of values.entries()) {
      const faults: FieldViolation[] = [];
      const add = (field: string, description: string): void => void faults.push({ field, description });
      visit(value, `${path}[${index}]`, { ...findings, add });
      if (faults.length === 0) continue;
      values[index] = standInFor(agentIdOf(value), faults);
      findings.change();
    }
  };
}

function agentIdOf(beat: unknown): string {
  if (typeof beat !== "object" || beat === null) return "";
  const agentId: unknown = Reflect.get(beat, "agentId") ?? Reflect.get(beat, "agent_id");
  return typeof agentId === "string" ? agentId.toWellFormed() : "";
}

function compileValue(field: DescField, known: Map<string, Visit>): Visit | undefined {
  if (field.enum !== undefined) return visitBy(enumRule(field.enum));
  if (field.message !== undefined) return compileMessage(field.message, known);
  const rule = field.scalar === undefined ? undefined : scalarRule(field.scalar, field);
  return rule === undefined ? undefined : visitBy(rule);
}

function visitBy(rule: JsonRule): Visit {
  return (value, path, findings) => {
    const fault = rule(value);
    if (fault !== undefined) findings.add(path, fault);
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
