import { type DescEnum, type DescField, type DescMessage, type Message, ScalarType } from "@bufbuild/protobuf";
import { type ReflectMessage, reflect } from "@bufbuild/protobuf/reflect";
import type { Random } from "../chaos/random.ts";

/** A placeholder for a lone surrogate, which no library writes: see `withHalfPairs`. */
const HALF_PAIR = "\ue000";

/** Replaces the placeholders by lone surrogates: as bytes that are not UTF-8, or as JSON's escape. */
export function withHalfPairs(encoded: Uint8Array, json: boolean): Uint8Array {
  const bytes = Buffer.from(encoded);
  if (json) return Buffer.from(bytes.toString().replaceAll(HALF_PAIR, "\\ud800"));
  for (let at = bytes.indexOf(HALF_PAIR); at >= 0; at = bytes.indexOf(HALF_PAIR, at)) bytes.set([0xed, 0xa0, 0x80], at);
  return bytes;
}

/** Names that people, programs and attackers write. */
const STRINGS: readonly string[] = [
  "",
  " ",
  "\0",
  "a\0b",
  "\u0001\u001f\u007f\u0085",
  "a\r\nx-injected: 1",
  "\u202egnp.exe\u202c",
  "\u200b\ufeff\u2066\u2069",
  "🧑‍🚀𝒳𐍈",
  "e\u0301".repeat(200),
  "\u{10ffff}\uffff\ufffe",
  HALF_PAIR,
  `a${HALF_PAIR}b`,
  "'; DROP TABLE users; --",
  "' OR '1'='1",
  '"; SELECT pg_sleep(10); --',
  "$1 $2 ?? :name ~*",
  "%00 %s %n {{7*7}} <script>alert(1)</script>",
  "../../../../etc/passwd",
  "__proto__",
  "constructor",
  "toString",
  "null",
  "NaN",
  "\\",
  "%",
  "_",
  "ß".repeat(128),
  "😀".repeat(128),
  "😀".repeat(129),
  "x".repeat(256),
  "x".repeat(257),
  "x".repeat(70_000),
  "1969-12-31T23:59:59Z",
];

const LONG = "n".repeat(1_040_000);

/** Names that exist already, or soon: few, so that calls meet each other's traces, and the fleet does not grow. */
export const NAMES: readonly string[] = Array.from({ length: 24 }, (_, index) => `fuzz-${index}`);

function hostileString(random: Random): string {
  if (random.chance(0.45)) return random.pick(NAMES);
  if (random.chance(0.004)) return LONG;
  if (random.chance(0.2)) return randomText(random);
  return random.pick(STRINGS);
}

function randomText(random: Random): string {
  const length = Math.floor(random.between(1, 40));
  return Array.from({ length }, () => {
    const code = Math.floor(random.next() ** 3 * 0x11_0000);
    return String.fromCodePoint(code);
  })
    .join("")
    .toWellFormed();
}

const BIGINTS: readonly bigint[] = [
  0n,
  1n,
  2n,
  7n,
  -1n,
  2n ** 31n,
  2n ** 32n,
  2n ** 53n,
  2n ** 63n - 1n,
  -(2n ** 63n),
  1_700_000_000n,
  // Seconds of the years 1 and 9999, which a Timestamp may hold, and one second beyond each.
  -62_135_596_800n,
  -62_135_596_801n,
  253_402_300_799n,
  253_402_300_800n,
  // Beyond what PostgreSQL's timestamps hold.
  9_224_318_016_000n,
  -210_866_803_201n,
];

const INTEGERS: readonly number[] = [
  0, 1, 2, 3, 50, 1_000, 1_001, -1, 999_999_999, 1_000_000_000, -999_999_999, 2_147_483_647, -2_147_483_648,
];

/**
 * A message of the type with random values of its fields. Half of them break a rule; the others are nearly
 * valid, so that their violations get as far as possible.
 */
export function hostileMessage(desc: DescMessage, random: Random): Message {
  return build(desc, random, 0, random.chance(0.5)).message;
}

function build(desc: DescMessage, random: Random, depth: number, plausible: boolean): ReflectMessage {
  const message = reflect(desc);
  for (const field of desc.fields) {
    if (!random.chance(field.oneof === undefined ? 0.6 : 0.4) || depth > 4) continue;
    if (plausible && random.chance(0.92)) fillPlausibly(message, field, random, depth);
    else fill(message, field, random, depth);
  }
  return message;
}

function fillPlausibly(message: ReflectMessage, field: DescField, random: Random, depth: number): void {
  if (field.fieldKind === "enum") {
    message.set(field, random.pick(field.enum.values).number);
  } else if (field.fieldKind === "message") {
    message.set(field, build(field.message, random, depth + 1, true));
  } else if (field.fieldKind === "list" && field.listKind === "message") {
    message.get(field).add(build(field.message, random, depth + 1, true));
  } else if (field.fieldKind === "scalar" && field.scalar === ScalarType.STRING) {
    // Pages start at the first one, and most repeated inputs are meant as other requests.
    if (field.name === "page_token" || (field.name === "request_id" && random.chance(0.7))) return;
    const name = random.pick(NAMES);
    message.set(field, field.name === "email" ? `${name}@example.org` : name);
  } else if (field.fieldKind === "scalar" && field.name === "seconds") {
    message.set(field, BigInt(Math.floor(Date.now() / 1_000) + Math.floor(random.between(-100, 100_000))));
  } else if (field.fieldKind === "scalar" && field.name === "nanos") {
    message.set(field, random.pick([0, 1, 500_000_000]));
  } else if (field.fieldKind === "scalar" && LONGS.has(field.scalar)) {
    message.set(field, BigInt(Math.floor(random.between(0, 30))));
  } else {
    fill(message, field, random, depth);
  }
}

const LONGS: ReadonlySet<ScalarType> = new Set([ScalarType.INT64, ScalarType.UINT64]);

function fill(message: ReflectMessage, field: DescField, random: Random, depth: number): void {
  switch (field.fieldKind) {
    case "scalar":
      message.set(field, scalar(field.scalar, random));
      return;
    case "enum":
      message.set(field, enumNumber(field.enum, random));
      return;
    case "message":
      message.set(field, build(field.message, random, depth + 1, false));
      return;
    case "list": {
      const list = message.get(field);
      const count = random.chance(0.01) ? 1_001 : Math.floor(random.between(0, 4));
      for (let index = 0; index < count; index += 1) {
        if (field.listKind === "scalar") list.add(scalar(field.scalar, random, count > 100));
        else if (field.listKind === "enum") list.add(enumNumber(field.enum, random));
        else list.add(build(field.message, random, count > 100 ? 5 : depth + 1, false));
      }
      return;
    }
    case "map":
      return;
  }
}

function enumNumber(desc: DescEnum, random: Random): number {
  return random.chance(0.8) ? random.pick(desc.values).number : random.pick(INTEGERS);
}

function scalar(type: ScalarType, random: Random, short = false): string | boolean | number | bigint | Uint8Array {
  switch (type) {
    case ScalarType.STRING:
      return short ? random.pick(NAMES) : hostileString(random);
    case ScalarType.BOOL:
      return random.chance(0.5);
    case ScalarType.BYTES:
      return randomBytes(random, 40);
    case ScalarType.DOUBLE:
    case ScalarType.FLOAT:
      return random.pick([0, -1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]);
    case ScalarType.INT64:
    case ScalarType.SINT64:
    case ScalarType.SFIXED64:
      return random.pick(BIGINTS);
    case ScalarType.UINT64:
    case ScalarType.FIXED64:
      return BigInt.asUintN(64, random.pick(BIGINTS));
    case ScalarType.UINT32:
    case ScalarType.FIXED32:
      return random.pick(INTEGERS) >>> 0;
    default:
      return random.pick(INTEGERS);
  }
}

export function randomBytes(random: Random, most: number): Uint8Array {
  const length = Math.floor(random.between(0, most + 1));
  return Uint8Array.from({ length }, () => Math.floor(random.next() * 256));
}

/** Bytes with a few of them changed, left out, doubled or cut off. */
export function mutated(bytes: Uint8Array, random: Random): Uint8Array {
  let result = Buffer.from(bytes);
  const changes = Math.floor(random.between(1, 4));
  for (let change = 0; change < changes; change += 1) {
    const at = Math.floor(random.next() * (result.length + 1));
    switch (Math.floor(random.next() * 5)) {
      case 0:
        if (at < result.length) result[at] = Math.floor(random.next() * 256);
        break;
      case 1:
        if (at < result.length) result[at] = (result[at] ?? 0) ^ (1 << Math.floor(random.next() * 8));
        break;
      case 2:
        result = Buffer.concat([result.subarray(0, at), randomBytes(random, 8), result.subarray(at)]);
        break;
      case 3:
        result = Buffer.concat([result.subarray(0, at), result.subarray(at + Math.floor(random.next() * 8))]);
        break;
      default:
        result = result.subarray(0, at);
    }
  }
  return result;
}

const JSON_VALUES: readonly string[] = [
  '"\\ud800"',
  '"\\u0000"',
  "1e999",
  "-0",
  "1.5",
  "null",
  "[]",
  "{}",
  "true",
  '"9999-12-31T23:59:59.999999999Z"',
  '"0001-01-01T00:00:00Z"',
  '"10000-01-01T00:00:00Z"',
  '"-1s"',
  '"1.0000000001s"',
  '"999999999999999999999"',
  "99999999999999999999999999",
  '"\u202e"',
  `${"[".repeat(500)}${"]".repeat(500)}`,
  `${'{"a":'.repeat(500)}1${"}".repeat(500)}`,
  '{"__proto__":{"a":1}}',
];

/** JSON with a value in it replaced by another kind of value, or damaged as text. */
export function mutatedJson(json: string, random: Random): Uint8Array {
  if (random.chance(0.3)) return mutated(Buffer.from(json), random);
  const values = [...json.matchAll(/:("(?:[^"\\]|\\.)*"|-?[\d.]+|true|false|null)/g)];
  if (values.length === 0) return Buffer.from(random.pick(JSON_VALUES));
  const { index, 0: whole } = random.pick(values);
  return Buffer.from(`${json.slice(0, index)}:${random.pick(JSON_VALUES)}${json.slice(index + whole.length)}`);
}
