/** A claw and its agents. */
export interface ClawPlan {
  readonly name: string;
  readonly agentIds: readonly string[];
}

/** The claws and their agents, with the same names in each run. Agents are distributed evenly. */
export function planFleet(names: string, claws: number, agents: number): ClawPlan[] {
  const digits = Math.max(2, String(Math.ceil(agents / claws)).length);
  return clawNames(names, claws).map((name, place) => {
    const size = Math.floor(agents / claws) + (place < agents % claws ? 1 : 0);
    const agentIds = Array.from({ length: size }, (_, index) => `${name}-${String(index + 1).padStart(digits, "0")}`);
    return { name, agentIds };
  });
}

/** The names of the claws: with letters up to 26 claws, then with numbers. */
export function clawNames(names: string, claws: number): string[] {
  return Array.from({ length: claws }, (_, place) => `${names}-claw-${clawSuffix(place, claws)}`);
}

function clawSuffix(place: number, claws: number): string {
  if (claws <= 26) return String.fromCodePoint("a".charCodeAt(0) + place);
  return String(place + 1).padStart(String(claws).length, "0");
}
