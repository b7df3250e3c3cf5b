import type { Command } from "commander";
import type { EnrolFlags } from "../../enrol/run-enrolment.ts";
import { connectedCommand, type Shell } from "../../shell.ts";

export function define(command: Command, shell: Shell): void {
  command
    .description("create the users and agents of an OpenClaw gateway; can be repeated")
    .requiredOption("--from <file>", "the gateway's configuration, openclaw.json")
    .option("--claw <identifier>", "the claw (default: that of the plugin's settings in the file)")
    .option("--dry-run", "print the plan, and change nothing");
  const examples = [
    "harborforge-agents agents enrol --claw claw-1 --from ~/.openclaw/openclaw.json --dry-run",
    "harborforge-agents agents enrol --claw claw-1 --from ~/.openclaw/openclaw.json",
  ];
  connectedCommand<EnrolFlags>(shell, command, examples, async (context, flags) => {
    const { runEnrolment } = await import("../../enrol/run-enrolment.ts");
    return await runEnrolment(context, flags);
  });
}
