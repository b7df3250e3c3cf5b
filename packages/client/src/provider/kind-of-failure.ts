import { ERROR_KINDS, type ErrorKind } from "./error-kinds.ts";
import type { ProviderFailure } from "./provider-error.ts";

/** The first kind that an error is of; undefined if it is of none. */
export function kindOf(failure: ProviderFailure): ErrorKind | undefined {
  const names = [...failure.names];
  const statusOfError = [...failure.statuses].some((status) => status >= 400);
  const holds = (kind: ErrorKind): boolean =>
    (kind.withoutStatus === undefined || !statusOfError) &&
    (kind.statuses === undefined || kind.statuses.some((status) => failure.statuses.has(status))) &&
    (kind.statedStatuses === undefined ||
      (!statusOfError && kind.statedStatuses.some((status) => failure.statedStatuses.has(status)))) &&
    (kind.names === undefined || kind.names.some((name) => hasName(name, names, failure.names))) &&
    (kind.phrases === undefined || kind.phrases.some((phrase) => failure.text.includes(phrase)));
  return ERROR_KINDS.find(holds);
}

function hasName(wanted: string, names: readonly string[], exact: ReadonlySet<string>): boolean {
  if (!wanted.includes("*")) return exact.has(wanted);
  const pieces = wanted.split("*");
  return names.some((name) => hasPieces(name, pieces));
}

/** Whether a name consists of the pieces, in order, with any characters between them. */
function hasPieces(name: string, pieces: readonly string[]): boolean {
  const [first = ""] = pieces;
  const last = pieces.at(-1) ?? "";
  if (!name.startsWith(first) || !name.endsWith(last) || name.length < first.length + last.length) return false;
  let from = first.length;
  for (const piece of pieces.slice(1, -1)) {
    const at = name.indexOf(piece, from);
    if (at < 0 || at + piece.length > name.length - last.length) return false;
    from = at + piece.length;
  }
  return true;
}
