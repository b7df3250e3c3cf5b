import {
  create,
  type DescField,
  type DescMessage,
  type Message,
  type MessageInitShape,
  ScalarType,
} from "@bufbuild/protobuf";
import { FeatureSet_FieldPresence } from "@bufbuild/protobuf/wkt";
import fc from "fast-check";

/** How deep messages are nested in each other, so that recursive ones end. */
const MAX_DEPTH = 4;

type Values = Record<string, unknown>;

/** A message in which each field is set or not: mostly with usual values, rarely with unusual ones, and with unknown fields. */
export function anyMessage(desc: DescMessage): fc.Arbitrary<Message> {
  return anyValues(desc, 0).map((values) => create(desc, values as MessageInitShape<DescMessage>));
}

function anyValues(desc: DescMessage, depth: number): fc.Arbitrary<Values> {
  const members = desc.members.map((member) => {
    if (member.kind === "field") {
      const value = anyField(member, depth);
      return value.map((of): Values => (of === undefined ? {} : { [member.localName]: of }));
    }
    const cases = member.fields.map((field) =>
      anyPresent(field, depth).map((value): Values => ({ [member.localName]: { case: field.localName, value } })),
    );
    return fc.oneof(fc.constant<Values>({}), ...cases);
  });
  const unknown: Values = { $unknown: [{ no: 999, wireType: 0, data: new Uint8Array([1]) }] };
  return fc
    .tuple(...members, rarely(fc.constant<Values>({}), fc.constant(unknown)))
    .map((values) => Object.assign({ $typeName: desc.typeName }, ...values))
    .map((values: Values) => (Object.hasOwn(values, "$unknown") ? whole(desc, values) : withoutTypeName(values)));
}

/** `create` takes no unknown fields, except those of a message that is there already. */
function whole(desc: DescMessage, { $unknown, ...values }: Values): Values {
  return Object.assign(create(desc, withoutTypeName(values) as MessageInitShape<DescMessage>), { $unknown });
}

function withoutTypeName({ $typeName: _, ...values }: Values): Values {
  return values;
}

/** Most messages have only usual values. */
function rarely<T>(usual: fc.Arbitrary<T>, unusual: fc.Arbitrary<T>): fc.Arbitrary<T> {
  return fc.oneof({ weight: 80, arbitrary: usual }, { weight: 1, arbitrary: unusual });
}

function anyField(field: DescField, depth: number): fc.Arbitrary<unknown> {
  if (field.fieldKind === "list") return fc.array(anyPresent(field, depth), { maxLength: depth === 0 ? 3 : 1 });
  if (field.fieldKind === "map") {
    const entry = fc.tuple(anyScalar(field.mapKey), anyPresent(field, depth));
    return fc.array(entry, { maxLength: 2 }).map((entries) => Object.fromEntries(entries));
  }
  const hasPresence = field.presence !== FeatureSet_FieldPresence.IMPLICIT;
  return hasPresence ? fc.option(anyPresent(field, depth), { nil: undefined }) : anyPresent(field, depth);
}

/** A value of the field, of one of its items, or of a value of its map. */
function anyPresent(field: DescField, depth: number): fc.Arbitrary<unknown> {
  if (field.message !== undefined) {
    switch (field.message.typeName) {
      // In messages, these two have types of their own.
      case "google.protobuf.Struct":
        return fc.constant({ key: 1 });
      case "google.protobuf.Int64Value":
        return fc.constantFrom(0n, 5n);
      default:
        return depth >= MAX_DEPTH ? fc.constant({}) : anyValues(field.message, depth + 1);
    }
  }
  if (field.enum !== undefined) return rarely(fc.constantFrom(0, 1, 2, 99), fc.constantFrom(-1, 2 ** 31 - 1));
  if (field.scalar === undefined) throw new Error(`${String(field)} has no type`);
  const scalar = anyScalar(field.scalar);
  const isText = "longAsString" in field && field.longAsString;
  return isText ? scalar.map((value) => String(value)) : scalar;
}

function anyScalar(scalar: ScalarType): fc.Arbitrary<string | number | bigint | boolean | Uint8Array> {
  switch (scalar) {
    case ScalarType.STRING:
      return rarely(fc.constantFrom("", "a", "agent-1", "x".repeat(200)), fc.string({ unit: "grapheme" }));
    case ScalarType.BYTES:
      return fc.uint8Array({ maxLength: 3 });
    case ScalarType.BOOL:
      return fc.boolean();
    case ScalarType.FLOAT:
      return fc.constantFrom(0, -0, 1.5, Number.NaN);
    case ScalarType.DOUBLE:
      return fc.double();
    case ScalarType.INT32:
    case ScalarType.SINT32:
    case ScalarType.SFIXED32:
      return rarely(fc.constantFrom(0, 1, 127, 128, 2 ** 31 - 1), fc.integer());
    case ScalarType.UINT32:
    case ScalarType.FIXED32:
      return rarely(fc.constantFrom(0, 1, 300, 2 ** 31, 2 ** 32 - 1), fc.nat());
    case ScalarType.UINT64:
    case ScalarType.FIXED64:
      return rarely(fc.constantFrom(0n, 1n, 2n ** 32n, 2n ** 49n - 1n), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }));
    default:
      return rarely(
        fc.constantFrom(0n, 1n, 2n ** 32n, 2n ** 49n - 1n),
        fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
      );
  }
}
