import { withoutUserInfo } from "../../common/secrets/redaction.ts";
import type { ConfigProblem, Reporter } from "./problems.ts";
import type { Setting, ValuesOf } from "./setting.ts";
import { SETTINGS, type SettingKey } from "./settings.ts";

/** The environment, as `process.env` has it. */
export interface Environment {
  readonly [name: string]: string | undefined;
}

export interface ConfigSources {
  readonly env: Environment;
  /** The flags of the command line, by the keys of `SETTINGS`. They take precedence over the environment. */
  readonly flags?: Readonly<Partial<Record<SettingKey, string | undefined>>>;
  /** Whether the log is written to a terminal. */
  readonly isTerminal?: boolean;
}

/** Settings as they were read: defaults in place of those that are wrong. */
export interface ReadSettings extends Reporter<SettingKey> {
  readonly values: ValuesOf<typeof SETTINGS>;
  readonly problems: readonly ConfigProblem[];
  /** Whether none of these settings is wrong. */
  areRight(group: Readonly<Partial<Record<SettingKey, unknown>>>): boolean;
}

/** Reads each setting by itself. An empty environment variable counts as unset. */
export function readSettings({ env, flags = {} }: Pick<ConfigSources, "env" | "flags">): ReadSettings {
  const problems: ConfigProblem[] = [];
  const wrong = new Set<string>();
  const values: Record<string, unknown> = {};
  const nameOf = (key: SettingKey): string =>
    flags[key] === undefined ? SETTINGS[key].env : `--${SETTINGS[key].flag}`;

  function read(key: SettingKey): unknown {
    const setting: Setting<unknown> = SETTINGS[key];
    const given = flags[key];
    const text = given ?? env[setting.env];
    if (text === undefined || (text === "" && given === undefined)) return setting.fallback;
    const value = setting.parse(text);
    if (value !== undefined) return value;
    wrong.add(key);
    problems.push({ name: nameOf(key), sentence: wrongValue(nameOf(key), setting, text) });
    return setting.fallback;
  }

  for (const key of keys()) values[key] = read(key);
  return {
    values: values as ValuesOf<typeof SETTINGS>,
    problems,
    areRight: (group) => !Object.keys(group).some((key) => wrong.has(key)),
    nameOf,
    report: (key, sentence) => void problems.push({ name: nameOf(key), sentence }),
  };
}

function keys(): SettingKey[] {
  return Object.keys(SETTINGS) as SettingKey[];
}

const LONGEST_SHOWN_VALUE = 100;

function wrongValue(name: string, { secret, allowed }: Setting<unknown>, value: string): string {
  if (secret === true) return `${name} is wrong (its value is not shown): it must be ${allowed}.`;
  const safe = withoutUserInfo(value);
  const shown = safe.length > LONGEST_SHOWN_VALUE ? `${safe.slice(0, LONGEST_SHOWN_VALUE)}…` : safe;
  return `${name} is ${JSON.stringify(shown)}: it must be ${allowed}.`;
}
