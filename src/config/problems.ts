/** One wrong value, or several that do not fit together. */
export interface ConfigProblem {
  /** The environment variable, or the flag with its dashes: what has to be changed. */
  readonly name: string;
  /** What is wrong and what to do, in one line. It never holds a secret. */
  readonly sentence: string;
}

/** The configuration cannot be used. The message names every wrong setting, one per line. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
  readonly problems: readonly ConfigProblem[];

  constructor(problems: readonly ConfigProblem[]) {
    super(problems.map(({ sentence }) => sentence).join("\n"));
    this.problems = problems;
  }
}

/** Reports what is wrong with settings that are right by themselves. `Key`: the keys of the settings. */
export interface Reporter<Key extends string> {
  /** The name under which the setting was given: the flag with its dashes, or the environment variable. */
  nameOf(key: Key): string;
  /** @param sentence what is wrong and what to do */
  report(key: Key, sentence: string): void;
}
