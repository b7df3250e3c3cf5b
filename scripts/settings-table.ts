import type { Setting } from "../src/config/setting.ts";
import { SETTINGS } from "../src/config/settings.ts";

/** The table of all settings in docs/settings.md. */
export function settingsTable(): string {
  const rows = Object.values<Setting<unknown>>(SETTINGS).map(
    ({ env, flag, description, allowed, defaultText }) =>
      `| \`${env}\`<br>\`--${flag}\` | ${defaultText} | ${description}: ${allowed} |`,
  );
  return ["| setting | default | meaning and range |", "| --- | --- | --- |", ...rows].join("\n");
}
