import { ACCESS_SETTINGS } from "./access.ts";
import { DATABASE_SETTINGS, MIGRATION_SETTINGS } from "./database.ts";
import { FLEET_SETTINGS } from "./fleet.ts";
import { LIMIT_SETTINGS } from "./limits.ts";
import {
  ADDRESS_SETTINGS,
  COMPRESSION_SETTINGS,
  ORIGIN_SETTINGS,
  REFLECTION_SETTINGS,
  STOP_SETTINGS,
} from "./listeners.ts";
import { LOG_SETTINGS } from "./log.ts";
import { named } from "./setting.ts";
import { TLS_SETTINGS } from "./tls.ts";

/** All settings, by their keys. `--help` and the table in docs/settings.md are made from it, in this order. */
export const SETTINGS = named({
  ...DATABASE_SETTINGS,
  ...MIGRATION_SETTINGS,
  ...ADDRESS_SETTINGS,
  ...FLEET_SETTINGS,
  ...TLS_SETTINGS,
  ...LIMIT_SETTINGS,
  ...REFLECTION_SETTINGS,
  ...COMPRESSION_SETTINGS,
  ...ORIGIN_SETTINGS,
  ...LOG_SETTINGS,
  ...STOP_SETTINGS,
  ...ACCESS_SETTINGS,
});

export type SettingKey = keyof typeof SETTINGS;
