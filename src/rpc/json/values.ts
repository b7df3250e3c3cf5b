import { type DescField, getOption, ScalarType } from "@bufbuild/protobuf";
import { field as fieldRules } from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";

/** Says what a JSON value must be, beginning with «must». Undefined for a valid value. */
export type JsonRule = (value: unknown) => string | undefined;

const INT32: readonly [bigint, bigint] = [-(2n ** 31n), 2n ** 31n - 1n];
const UINT32: readonly [bigint, bigint] = [0n, 2n ** 32n - 1n];
const INT64: readonly [bigint, bigint] = [-(2n ** 63n), 2n ** 63n - 1n];
const UINT64: readonly [bigint, bigint] = [0n, 2n ** 64n - 1n];

/**
 * The rule of a scalar type. Undefined for fractions and bytes: the library's parser reads these strictly.
 *
 * @param field the field, or the list, whose values have the type. The rules of the contract narrow the range of integers that
 * errors name
 */
export function scalarRule(type: ScalarType, field?: DescField): JsonRule | undefined {
  switch (type) {
    case ScalarType.STRING:
      return textFault;
    case ScalarType.BOOL:
      return (value) => (typeof value === "boolean" ? undefined : "must be true or false");
    case ScalarType.INT32:
    case ScalarType.SINT32:
    case ScalarType.SFIXED32:
      return integerRule(INT32, field);
    case ScalarType.UINT32:
    case ScalarType.FIXED32:
      return integerRule(UINT32, field);
    case ScalarType.INT64:
    case ScalarType.SINT64:
    case ScalarType.SFIXED64:
      return integerRule(INT64, field);
    case ScalarType.UINT64:
    case ScalarType.FIXED64:
      return integerRule(UINT64, field);
    case ScalarType.DOUBLE:
    case ScalarType.FLOAT:
    case ScalarType.BYTES:
      return undefined;
  }
}

function textFault(value: unknown): string | undefined {
  if (typeof value !== "string") return "must be a string";
  // JSON can escape half of a surrogate pair, which is not a character and has no UTF-8.
  return value.isWellFormed() ? undefined : "must be Unicode text: it holds half a surrogate pair";
}

const CANONICAL_INTEGER = /^(?:0|-?[1-9][0-9]{0,19})$/;

/**
 * Whole numbers as JSON numbers, or as strings of plain decimal digits. BigInt and Number accept much more: `"0x3"`, `" 3
 * "` and `""`.
 */
function integerRule([min, max]: readonly [bigint, bigint], field: DescField | undefined): JsonRule {
  const [least, most] = field === undefined ? [min, max] : allowedRange(field, [min, max]);
  const fault = `must be a whole number from ${least} to ${most} in plain decimal digits`;
  return (value) => {
    if (typeof value === "number") {
      if (!Number.isInteger(value) || BigInt(value) < min || BigInt(value) > max) return fault;
      // Its last digits are already lost: it may be the id of another agent.
      return Number.isSafeInteger(value) ? undefined : "must be a string where it is beyond 2^53: numbers lose digits";
    }
    if (typeof value !== "string" || !CANONICAL_INTEGER.test(value)) return fault;
    return BigInt(value) < min || BigInt(value) > max ? fault : undefined;
  };
}

/** The range of a type, narrowed by the field's rules. Values between both ranges are left to the check of the rules. */
function allowedRange(field: DescField, [min, max]: readonly [bigint, bigint]): readonly [bigint, bigint] {
  const { type } = getOption(field, fieldRules);
  const rules = type.case === "repeated" ? type.value.items?.type : type;
  switch (rules?.case) {
    case "int32":
    case "int64":
    case "uint32":
    case "uint64": {
      const { greaterThan, lessThan } = rules.value;
      return [boundOf(greaterThan, "gt", 1n) ?? min, boundOf(lessThan, "lt", -1n) ?? max];
    }
    default:
      return [min, max];
  }
}

/** @param exclusive the rule that excludes its own value */
function boundOf(
  rule: { readonly case?: string | undefined; readonly value?: number | bigint | undefined },
  exclusive: string,
  step: bigint,
): bigint | undefined {
  if (rule.value === undefined) return undefined;
  return BigInt(rule.value) + (rule.case === exclusive ? step : 0n);
}

const DURATION = /^-?(0|[1-9][0-9]{0,11})(?:\.([0-9]{1,9}))?s$/;
const MAX_DURATION_SECONDS = 315_576_000_000;

/** `google.protobuf.Duration`: seconds as a decimal number with the unit `s`, from -10 000 to 10 000 years. */
export function durationFault(value: unknown): string | undefined {
  const [, seconds, fraction = ""] = (typeof value === "string" && DURATION.exec(value)) || [];
  const fits =
    seconds !== undefined &&
    (Number(seconds) < MAX_DURATION_SECONDS || (Number(seconds) === MAX_DURATION_SECONDS && !/[1-9]/.test(fraction)));
  return fits ? undefined : 'must be a duration in seconds with the unit s, e.g. "90s" or "0.250s"';
}

const TIMESTAMP =
  /^(\d{4})-(\d\d)-(\d\d)T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,9})?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)$/;

/** `google.protobuf.Timestamp`: RFC 3339, from year 1 to 9999. */
export function timestampFault(value: unknown): string | undefined {
  const fault = 'must be a time by RFC 3339, e.g. "2030-01-31T12:00:00Z"';
  if (typeof value !== "string") return fault;
  const match = TIMESTAMP.exec(value);
  if (match === null) return fault;
  const [, year, month, day] = match;
  if (!isDate(Number(year), Number(month), Number(day))) return `${fault}: there is no such day`;
  const instant = Date.parse(value);
  return instant >= FIRST_INSTANT && instant <= LAST_INSTANT ? undefined : `${fault}, from year 1 to 9999`;
}

const FIRST_INSTANT = Date.parse("0001-01-01T00:00:00Z");
const LAST_INSTANT = Date.parse("9999-12-31T23:59:59.999Z");

/** `Date` reads the 30th of February as the 2nd of March. */
function isDate(year: number, month: number, day: number): boolean {
  if (month < 1 || month > 12 || day < 1) return false;
  // `Date` reads years below 100 as 19xx. The calendar repeats every 400 years.
  return day <= new Date(Date.UTC(2_000 + (year % 400), month, 0)).getUTCDate();
}
