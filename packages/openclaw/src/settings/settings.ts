import { readFileSync } from "node:fs";
import type { HeartbeatClientOptions } from "harborforge-agents-client";
import { type AgentNames, agentNamesOf } from "../../../../common/openclaw/gateway-agents.ts";
import { field, number, text } from "../../../../common/openclaw/values.ts";

/** The plugin's settings: `plugins.entries.harborforge.config` of the gateway. `openclaw.plugin.json` describes them. */
export interface Settings {
  readonly claw: string;
  readonly addresses: readonly string[];
  readonly token: string | undefined;
  readonly tls: HeartbeatClientOptions["tls"];
  /** The `agent_id` of the service by the gateway's id. `false`: not reported. Default: `<claw>/<id>`. */
  readonly agents: AgentNames;
  readonly silentRunMs: number;
  readonly callEndMs: number;
}

const MINUTE_MS = 60_000;

/** Settings that are missing or wrong, one sentence each. */
export interface InvalidSettings {
  readonly problems: readonly string[];
}

/** Reads the settings. Never throws. */
export function readSettings(config: unknown): Settings | InvalidSettings {
  const problems: string[] = [];
  const claw = text(config, "claw");
  if (claw === undefined) {
    problems.push(
      "claw is missing. Name this gateway: openclaw config set plugins.entries.harborforge.config.claw NAME",
    );
  }
  const token = field(config, "token");
  if (token !== undefined && typeof token !== "string") {
    problems.push("token was not resolved. Check the secret that it refers to: openclaw secrets audit");
  }
  const read = (name: string): string | undefined => {
    const path = text(field(config, "tls"), name);
    if (path === undefined) return undefined;
    try {
      return readFileSync(path, "utf8");
    } catch (error) {
      problems.push(`tls.${name} cannot be read: ${error instanceof Error ? error.message : String(error)}`);
      return undefined;
    }
  };
  const [ca, cert, key] = [read("caFile"), read("certFile"), read("keyFile")];
  const servername = text(field(config, "tls"), "serverName");
  if (claw === undefined || problems.length > 0) return { problems };
  const several = field(config, "address");
  const addresses = (Array.isArray(several) ? several : [several ?? "127.0.0.1:50051"]).map(String);
  const tls = {
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    ...(servername === undefined ? {} : { servername }),
  };
  return {
    claw,
    addresses,
    token: typeof token === "string" && token !== "" ? token : undefined,
    tls: Object.keys(tls).length === 0 ? undefined : tls,
    agents: agentNamesOf(config),
    silentRunMs: (number(config, "silentRunMinutes") ?? 60) * MINUTE_MS,
    callEndMs: (number(config, "callEndSeconds") ?? 30) * 1_000,
  };
}
