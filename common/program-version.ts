import { readFileSync } from "node:fs";

/** The version of the service's package, such as `1.2.3`. */
export function programVersion(): string {
  const parsed: unknown = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"));
  const version = typeof parsed === "object" && parsed !== null && "version" in parsed ? parsed.version : undefined;
  return String(version);
}
