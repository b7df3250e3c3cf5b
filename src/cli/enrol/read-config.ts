import { readFileSync, statSync } from "node:fs";
import JSON5 from "json5";
import { GatewayConfigError } from "./enrolment.ts";

const MOST_BYTES = 4 * 1024 * 1024;

/** Reads a gateway's configuration, which is JSON5. @throws GatewayConfigError */
export function readGatewayConfig(path: string): unknown {
  try {
    if (statSync(path).size > MOST_BYTES) throw new Error("it is larger than 4 MiB");
    return JSON5.parse(readFileSync(path, "utf8"));
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new GatewayConfigError(`"${path}" cannot be read: ${why}`);
  }
}
