/** Longer names get no suggestion: the comparison takes the product of both lengths. */
const LONGEST_NAME = 64;

/** `; did you mean x?` for the candidate that is most like a name, or nothing if none is. */
export function didYouMean(name: string, candidates: Iterable<string>): string {
  const best = mostLike(name, candidates);
  return best === undefined ? "" : `; did you mean ${best}?`;
}

/**
 * The candidate that is most like a name; undefined if none is. A name is like a candidate if at most a third of its letters
 * differ, or if the candidate begins or ends with it. Letter case and underscores do not count.
 */
function mostLike(name: string, candidates: Iterable<string>): string | undefined {
  if (name.length > LONGEST_NAME) return undefined;
  const wanted = plain(name);
  let best: string | undefined;
  let fewest = Number.POSITIVE_INFINITY;
  for (const candidate of candidates) {
    const other = plain(candidate);
    const edits = wanted.length >= 4 && contains(other, wanted) ? 1 : distance(wanted, other);
    if (edits < fewest && edits <= Math.max(wanted.length, other.length) / 3) {
      fewest = edits;
      best = candidate;
    }
  }
  return best;
}

/** Says that a path is no method, and which methods are like it: those of its service, or all if there is no such service. */
export function noSuchMethod(path: string, paths: Iterable<string>): string {
  const [service, method] = splitPath(path);
  const all = [...paths].map(splitPath);
  const ofService = all.filter(([name]) => name === service).map(([, name]) => name);
  if (ofService.length > 0) return `there is no method ${path} here${didYouMean(method, ofService)}`;
  const services = new Map(all.map(([name]) => [shortName(name), name]));
  const like = services.get(mostLike(shortName(service), services.keys()) ?? "");
  return `there is no method ${path} here${like === undefined ? "" : `; did you mean /${like}/${method}?`}`;
}

/** `Agent` of `harborforge.agents.v1.AgentService`: all names of services end alike. */
function shortName(service: string): string {
  return service.slice(service.lastIndexOf(".") + 1).replace(/Service$/, "");
}

/** The service and the method of `/package.Service/Method`. */
function splitPath(path: string): [service: string, method: string] {
  const [, service = "", method = ""] = path.split("/");
  return [service, method];
}

function plain(name: string): string {
  return name.replaceAll("_", "").toLowerCase();
}

function contains(candidate: string, name: string): boolean {
  return candidate.startsWith(name) || candidate.endsWith(name);
}

/** The Levenshtein distance: how many characters to insert, delete or replace. */
function distance(one: string, other: string): number {
  let row = Array.from({ length: other.length + 1 }, (_, index) => index);
  for (let at = 1; at <= one.length; at += 1) {
    const next = [at];
    for (let to = 1; to <= other.length; to += 1) {
      const replaced = (row[to - 1] ?? 0) + (one[at - 1] === other[to - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[to] ?? 0) + 1, (next[to - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[other.length] ?? 0;
}
