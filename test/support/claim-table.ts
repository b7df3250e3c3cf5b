import type { SessionStart } from "../../common/contract/enum-names.ts";
import { type Claimant, claimOf, type LastSession, NO_INSTANCE } from "../../src/domain/session-start.ts";

/** The process that claims, and another one. */
export const OWN = "11111111-1111-4111-8111-111111111111";
export const OTHER = "22222222-2222-4222-8222-222222222222";
/** The generation of the stream that claims. */
export const GENERATION = 5n;

/** How a stream claims an agent. `lost`: it had the agent before, and another stream took it. */
export const ASKED = {
  "does not say": { start: undefined, lost: false },
  "claims first": { start: "first", lost: false },
  "claims anew": { start: "anew", lost: false },
  resumes: { start: "resume", lost: false },
  "lost it, never said": { start: undefined, lost: true },
  "lost it after a claim": { start: "first", lost: true },
  "lost it after a resume": { start: "resume", lost: true },
} as const satisfies Record<string, { readonly start: SessionStart | undefined; readonly lost: boolean }>;

type Asked = keyof typeof ASKED;

export interface Row {
  readonly state: string;
  readonly last: LastSession;
  /** The claims that get the agent. All others get `SESSION_SUPERSEDED`. */
  readonly gets: readonly Asked[];
}

export const EVERY: readonly Asked[] = [
  "does not say",
  "claims first",
  "claims anew",
  "resumes",
  "lost it, never said",
  "lost it after a claim",
  "lost it after a resume",
];
const FRESH: readonly Asked[] = ["does not say", "claims first", "claims anew"];
const last = (fields: Partial<LastSession>): LastSession => ({
  held: false,
  epoch: 7n,
  instance: OWN,
  generation: GENERATION - 1n,
  outdated: false,
  ...fields,
});

/** The whole table: every kind of claim against every state of an agent. */
export const TABLE: readonly Row[] = [
  // Also an agent that was moved, or deleted and created again, since it was held.
  { state: "no process has held it", last: last({ instance: NO_INSTANCE, generation: 0n }), gets: EVERY },
  {
    state: "an older stream of the process holds it",
    last: last({ held: true }),
    gets: [...FRESH, "resumes"],
  },
  {
    state: "a stream of the process with the same generation holds it",
    last: last({ held: true, generation: GENERATION }),
    gets: [...FRESH, "resumes"],
  },
  {
    state: "a newer stream of the process holds it",
    last: last({ held: true, generation: GENERATION + 1n }),
    gets: [],
  },
  { state: "an older stream of the process held it last", last: last({}), gets: EVERY },
  { state: "a newer stream of the process held it last", last: last({ generation: GENERATION + 1n }), gets: EVERY },
  { state: "another process holds it", last: last({ held: true, instance: OTHER }), gets: FRESH },
  {
    state: "another process with a higher generation holds it",
    last: last({ held: true, instance: OTHER, generation: GENERATION + 1n }),
    gets: FRESH,
  },
  {
    state: "another process held it last",
    last: last({ instance: OTHER }),
    gets: [...FRESH, "lost it, never said"],
  },
  { state: "a process without an instance_id holds it", last: last({ held: true, instance: null }), gets: FRESH },
  {
    state: "a process without an instance_id held it last",
    last: last({ instance: null }),
    gets: [...FRESH, "lost it, never said"],
  },
  {
    state: "another process holds it since before a lost history",
    last: last({ held: true, instance: OTHER, outdated: true }),
    gets: FRESH,
  },
  {
    state: "another process held it last, before a lost history",
    last: last({ instance: OTHER, outdated: true }),
    gets: EVERY,
  },
  {
    state: "a newer stream of the process holds it since before a lost history",
    last: last({ held: true, generation: GENERATION + 1n, outdated: true }),
    gets: [],
  },
];

/** Each row with each kind of claim. */
export const CASES = TABLE.flatMap(({ state, last, gets }) =>
  EVERY.map((asked) => ({ state, last, asked, gets: gets.includes(asked) })),
);

/** @param named whether its stream has an instance_id: then it is `OWN` */
export function claimantOf(asked: Asked, named = true): Claimant {
  const { start, lost } = ASKED[asked];
  return { instance: named ? OWN : undefined, generation: GENERATION, ...claimOf(start, lost) };
}
