import { inject } from "vitest";

declare module "vitest" {
  interface ProvidedContext {
    /** Which cases the files `*.sampled.test.ts` test: a sample of them in fast, the others in slow. */
    cases: "sample" | "others";
  }
}

/** The cases that this run tests: the sample in `npm test`, the others in `npm run test:slow`. */
export function casesOf<Case>(sample: readonly Case[], others: readonly Case[]): readonly Case[] {
  return inject("cases") === "sample" ? sample : others;
}
