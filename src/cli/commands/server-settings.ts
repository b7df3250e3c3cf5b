import { type Command, Option } from "commander";
import type { Setting } from "../../config/setting.ts";
import { SETTINGS } from "../../config/settings.ts";
import { inDetail } from "../help.ts";

/** The settings of commands that only use the database. */
export const DATABASE_SETTINGS: readonly Setting<unknown>[] = [
  SETTINGS.databaseUrl,
  SETTINGS.databaseUrlFile,
  SETTINGS.dataDir,
  SETTINGS.logLevel,
  SETTINGS.logFormat,
];

/**
 * Adds settings as options: each is also an environment variable.
 *
 * @param first those that `--help` shows, too; default: all
 */
export function addSettings(
  command: Command,
  settings: readonly Setting<unknown>[],
  first: readonly Setting<unknown>[] = settings,
): Command {
  for (const setting of settings) {
    const what = `${setting.description}: ${setting.allowed} (default: ${setting.defaultText}; env: ${setting.env})`;
    const option = new Option(`--${setting.flag} ${setting.placeholder}`, what);
    command.addOption(first.includes(setting) ? option : inDetail(option));
  }
  return command;
}
