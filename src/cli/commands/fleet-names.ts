import { InvalidArgumentError, Option } from "commander";

/** The most claws of a simulation: the limit of a filter. */
export const MAX_CLAWS = 1_000;
/** The claws of a simulation, if it is not told how many. */
export const DEFAULT_CLAWS = 5;

/** The prefix of the names of a simulation. */
export function namesOption(): Option {
  return new Option("--names <prefix>", "the prefix of all names").default("sim").argParser((text: string) => {
    if (/^[\p{L}\p{N}._-]{1,64}$/u.test(text)) return text;
    throw new InvalidArgumentError("It must be 1 to 64 letters, digits, dots, hyphens or underscores.");
  });
}
