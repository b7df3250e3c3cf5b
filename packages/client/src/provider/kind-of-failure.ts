import { ERROR_KINDS, type ErrorKind } from "./error-kinds.ts";
import type { ProviderFailure } from "./provider-error.ts";

/** With these, proxies report the errors of providers. */
const PROXY_STATUSES: ReadonlySet<number> = new Set([500, 502]);
/** What a `*` of a phrase stands for, at most. */
const LONGEST_GAP = 40;

/** The first kind that an error is of; undefined if it is of none. */
export function kindOf(failure: ProviderFailure): ErrorKind | undefined {
  const { statuses, statedStatuses, text } = failure;
  const names = [...failure.names];
  const hasStatus = [...statuses].some((status) => status >= 400 && !PROXY_STATUSES.has(status));
  const holds = (kind: ErrorKind): boolean =>
    !(kind.weak === true && hasStatus) &&
    (kind.requestAboveLimit === undefined || namesRequestAboveLimit(text)) &&
    holdsAny(kind.statuses, (status) => statuses.has(status)) &&
    holdsAny(kind.statedStatuses, (status) => statedStatuses.has(status)) &&
    holdsAny(kind.names, (name) => failure.names.has(name) || names.some((one) => hasPieces(one, name.split("*")))) &&
    holdsAny(kind.phrases, (phrase) => hasPhrase(text, phrase.split("*")));
  return ERROR_KINDS.find(holds);
}

const LIMIT_AND_REQUEST = /\blimit:? ~?(\d[\d,]{0,15})\b[^\n]{0,60}?\brequested:? ~?(\d[\d,]{0,15})/;

function namesRequestAboveLimit(text: string): boolean {
  const [, limit = "", requested = ""] = LIMIT_AND_REQUEST.exec(text) ?? [];
  return Number(requested.replaceAll(",", "")) > Number(limit.replaceAll(",", ""));
}

/** A condition that a kind does not have holds. */
function holdsAny<T>(values: readonly T[] | undefined, holds: (value: T) => boolean): boolean {
  return values === undefined || values.some(holds);
}

/** Whether a text has the pieces of a phrase, in order and near each other. */
function hasPhrase(text: string, [first = "", ...others]: readonly string[]): boolean {
  for (let at = text.indexOf(first); at >= 0; at = text.indexOf(first, at + 1)) {
    let end = at + first.length;
    const found = others.every((piece) => {
      const line = text.slice(end, end + LONGEST_GAP + piece.length).split("\n", 1)[0] ?? "";
      const next = line.indexOf(piece);
      end += next + piece.length;
      return next >= 0;
    });
    if (found) return true;
  }
  return false;
}

/** Whether a name consists of the pieces, in order, with any characters between them. */
function hasPieces(name: string, pieces: readonly string[]): boolean {
  const [first = ""] = pieces;
  const last = pieces.at(-1) ?? "";
  if (pieces.length < 2) return false;
  if (!name.startsWith(first) || !name.endsWith(last) || name.length < first.length + last.length) return false;
  let from = first.length;
  for (const piece of pieces.slice(1, -1)) {
    const at = name.indexOf(piece, from);
    if (at < 0 || at + piece.length > name.length - last.length) return false;
    from = at + piece.length;
  }
  return true;
}
