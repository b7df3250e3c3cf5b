import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { isClaimGranted, NO_INSTANCE } from "../../src/domain/session-start.ts";
import { CASES, claimantOf, EVERY, GENERATION, OTHER, OWN } from "../support/claim-table.ts";

describe("a stream that claims an agent", () => {
  it.each(CASES)("$state: a stream that $asked gets it: $gets", ({ last, asked, gets }) => {
    expect(isClaimGranted(claimantOf(asked), last)).toBe(gets);
  });

  it("without an instance_id counts as another process than every other one", () => {
    for (const asked of EVERY) {
      for (const held of [true, false]) {
        const seen = (instance: string | null) =>
          isClaimGranted(claimantOf(asked, false), {
            epoch: 7n,
            held,
            instance,
            generation: GENERATION,
            outdated: false,
          });
        expect(seen(null)).toBe(seen(OTHER));
      }
    }
  });

  const instance = fc.constantFrom(OWN, OTHER, NO_INSTANCE, null);
  const session = fc.record({
    epoch: fc.constant(7n),
    held: fc.boolean(),
    instance,
    generation: fc.constantFrom(GENERATION - 1n, GENERATION, GENERATION + 1n),
    outdated: fc.boolean(),
  });

  it("gets back from an older session the agents that it holds under a newer epoch, and no others", () => {
    fc.assert(
      fc.property(session, fc.constantFrom(...EVERY), (last, asked) => {
        const withEpoch = (heldUnder: bigint) => isClaimGranted({ ...claimantOf(asked), heldUnder }, last);
        expect(withEpoch(last.epoch + 1n)).toBe(true);
        expect(withEpoch(last.epoch)).toBe(isClaimGranted(claimantOf(asked), last));
      }),
    );
  });

  it("gets by a resume no agent that a first claim would not get", () => {
    fc.assert(
      fc.property(session, (last) => {
        if (isClaimGranted(claimantOf("resumes"), last))
          expect(isClaimGranted(claimantOf("claims first"), last)).toBe(true);
      }),
    );
  });

  it("takes by a resume no agent from a live process", () => {
    fc.assert(
      fc.property(session, (last) => {
        const isOthers = last.instance === OTHER || last.instance === null;
        if (last.held && isOthers) expect(isClaimGranted(claimantOf("resumes"), last)).toBe(false);
      }),
    );
  });
});
