import { field, text } from "../../../../common/openclaw/values.ts";
import type { CliCommand } from "../gateway/plugin-api.ts";

export const STATUS_METHOD = "harborforge.status";

/** Registers `openclaw harborforge status`, which asks the running gateway. */
export function registerStatusCommand(program: CliCommand): void {
  const group = program.command("harborforge").description("HarborForge Agents: the status of this gateway's agents");
  group
    .command("status")
    .description("show the connection, and what is reported for each agent")
    .option("--json", "print JSON")
    .action(async (options) => {
      const report = await callGateway();
      const isJson = field(options, "json") === true;
      process.stdout.write(isJson ? `${JSON.stringify(report, null, 2)}\n` : statusText(report));
    });
}

async function callGateway(): Promise<unknown> {
  // In a variable, so that nothing resolves it before the command runs.
  const module = "openclaw/plugin-sdk/gateway-runtime";
  const call = field(await import(module), "callGatewayFromCli");
  if (typeof call !== "function") {
    throw new Error("This version of OpenClaw does not let plugins call the gateway. Read the gateway's log instead.");
  }
  return await call(STATUS_METHOD, { timeout: "10000" }, {});
}

/** The report as text. Control characters of names are removed: they would move the cursor of a terminal. */
export function statusText(report: unknown): string {
  const connection = field(report, "connection");
  const addresses = field(report, "addresses");
  const lines = [
    `claw        ${text(report, "claw") ?? "-"}`,
    `service     ${Array.isArray(addresses) && addresses.length > 0 ? addresses.join(", ") : "-"}`,
    `connection  ${[text(connection, "state") ?? "unknown", text(connection, "error")].filter((part) => part !== undefined).join(": ")}`,
  ];
  const problems = field(report, "problems");
  for (const problem of Array.isArray(problems) ? problems : []) lines.push(`problem     ${problem}`);
  const agents = field(report, "agents");
  const rows = (Array.isArray(agents) ? agents : []).map((agent) =>
    COLUMNS.map(([, name]) => cell(field(agent, name))),
  );
  if (rows.length > 0) lines.push("", ...table([COLUMNS.map(([title]) => title), ...rows]));
  for (const agent of Array.isArray(agents) ? agents : []) {
    const refusal = text(agent, "refusal");
    const rejection = text(agent, "rejection");
    if (refusal !== undefined)
      lines.push("", `${cell(field(agent, "gatewayId"))}: last refusal of a provider: ${refusal}`);
    if (rejection !== undefined)
      lines.push("", `${cell(field(agent, "gatewayId"))}: last rejection of the service: ${rejection}`);
  }
  return `${lines.map(printable).join("\n")}\n`;
}

const COLUMNS = [
  ["AGENT", "gatewayId"],
  ["AGENT ID", "agentId"],
  ["GATEWAY SHOWS", "shown"],
  ["SERVICE HAS", "service"],
  ["HEARTBEATS", "presence"],
  ["RUNS", "runs"],
] as const;

function table(rows: readonly (readonly string[])[]): string[] {
  const widths = COLUMNS.map((_, column) => Math.max(...rows.map((row) => (row[column] ?? "").length)));
  return rows.map((row) =>
    row
      .map((text, column) => text.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd(),
  );
}

function cell(value: unknown): string {
  return value === undefined || value === null ? "-" : String(value);
}

function printable(line: string): string {
  return line.replaceAll(/\p{Cc}|\p{Cf}/gu, "�");
}
