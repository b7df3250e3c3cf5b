import { agentFacts } from "../../records/agent-columns.ts";
import { printOne } from "../../records/output.ts";
import type { OutputFormat } from "../../records/output-option.ts";
import type { AgentRecord } from "../../records/records.ts";
import type { Printer } from "../../terminal/printer.ts";

/** @throws OutputClosed */
export function printAgent(out: Printer, output: OutputFormat, agent: AgentRecord): Promise<void> {
  return printOne(out, output, agent, (one) => agentFacts(one, Date.now()));
}
