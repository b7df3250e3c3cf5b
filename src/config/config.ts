import { type AccessChoice, accessOf, checkCertificates, checkExposure } from "./access.ts";
import { type DatabaseChoice, databaseOf, MIGRATION_SETTINGS } from "./database.ts";
import { FLEET_SETTINGS } from "./fleet.ts";
import { LIMIT_SETTINGS } from "./limits.ts";
import {
  ADDRESS_SETTINGS,
  COMPRESSION_SETTINGS,
  ORIGIN_SETTINGS,
  REFLECTION_SETTINGS,
  STOP_SETTINGS,
} from "./listeners.ts";
import { type AuditedCalls, type LogLevel, logFormatOf } from "./log.ts";
import { ConfigError } from "./problems.ts";
import { type ConfigSources, readSettings } from "./read.ts";
import type { Definitions, DurationDefinition, ValuesOf } from "./setting.ts";
import type { SETTINGS } from "./settings.ts";
import { TLS_SETTINGS, type TlsChoice, tlsOf } from "./tls.ts";

/** Settings that are in the configuration as they are. */
const PLAIN_SETTINGS = {
  ...MIGRATION_SETTINGS,
  ...ADDRESS_SETTINGS,
  ...FLEET_SETTINGS,
  ...LIMIT_SETTINGS,
  ...REFLECTION_SETTINGS,
  ...COMPRESSION_SETTINGS,
  ...ORIGIN_SETTINGS,
  ...STOP_SETTINGS,
};

/** Values by the keys of their settings. The keys of durations end with `Ms`: they are in milliseconds. */
type PlainConfig<Group extends Definitions> = {
  readonly [Key in keyof Group & string as Group[Key] extends DurationDefinition
    ? `${Key}Ms`
    : Key]: ValuesOf<Group>[Key];
};

/** The whole configuration. */
export interface Config extends PlainConfig<typeof PLAIN_SETTINGS> {
  readonly database: DatabaseChoice;
  /** Undefined: the listeners serve cleartext. */
  readonly tls: TlsChoice | undefined;
  readonly access: AccessChoice;
  readonly logLevel: LogLevel;
  readonly logFormat: "pretty" | "json";
  readonly audit: {
    readonly calls: AuditedCalls;
    /** The path of a file. Undefined: audit lines are lines of the log. */
    readonly file: string | undefined;
  };
}

/**
 * Reads the whole configuration. An empty environment variable counts as unset.
 *
 * @throws ConfigError that names every wrong setting
 */
export function loadConfig({ env, flags, isTerminal = false }: ConfigSources): Config {
  const read = readSettings(flags === undefined ? { env } : { env, flags });
  const { values, problems } = read;
  const tls = read.areRight(TLS_SETTINGS) ? tlsOf(values, read) : undefined;
  const access = accessOf(values, read);
  const database = databaseOf(values, read);
  if (problems.length === 0) {
    checkExposure(values, access, tls, read);
    checkCertificates(access, tls, read);
  }
  if (problems.length > 0) throw new ConfigError(problems);
  return Object.freeze({
    ...plainConfig(values),
    database,
    tls,
    access: Object.freeze(access),
    logLevel: values.logLevel,
    logFormat: logFormatOf(values.logFormat, isTerminal),
    audit: Object.freeze({ calls: values.auditLog, file: values.auditFile }),
  });
}

function plainConfig(values: ValuesOf<typeof SETTINGS>): PlainConfig<typeof PLAIN_SETTINGS> {
  const config: Record<string, unknown> = {};
  for (const [key, setting] of Object.entries(PLAIN_SETTINGS)) {
    const value = values[key as keyof typeof PLAIN_SETTINGS];
    config["unit" in setting ? `${key}Ms` : key] = Object.freeze(value);
  }
  return config as PlainConfig<typeof PLAIN_SETTINGS>;
}
