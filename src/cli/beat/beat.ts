import { createInterface } from "node:readline";
import {
  type AgentHandle,
  createHeartbeatClient,
  type ExhaustionView,
  ReportError,
  type ReportOutcome,
} from "harborforge-agents-client";
import { EXHAUST_REASONS, type ReportedExhaustion } from "../../../common/contract/enum-names.ts";
import { MICROS_PER_MS, type Micros } from "../../../common/contract/time.ts";
import { formatDuration, parseDuration } from "../../config/values.ts";
import { CommandFailure } from "../call-failure.ts";
import { exhaustionFor } from "../commands/exhaustion-options.ts";
import { type ServiceContext, targetOf } from "../connection/service-context.ts";
import { EXIT_CONFLICT, EXIT_FAILED, EXIT_NOT_ALLOWED, EXIT_NOT_FOUND, EXIT_OK } from "../exit-codes.ts";
import { listenForInterrupts } from "../interrupt.ts";
import { reasonText, styleOf } from "../records/agent-columns.ts";
import { printable } from "../terminal/printable.ts";
import { localTime, timeText } from "../terminal/times.ts";
import { type BeatFlags, REPORTS, type ReportStatus } from "./beat-flags.ts";

const GOODBYE_MS = 5_000;

/** Exit codes by reason of the contract, for errors after which heartbeats are useless. */
const EXIT_BY_REASON: Readonly<Record<string, number>> = {
  AGENT_NOT_FOUND: EXIT_NOT_FOUND,
  SESSION_SUPERSEDED: EXIT_CONFLICT,
  WRONG_CLAW: EXIT_CONFLICT,
  PERMISSION_DENIED: EXIT_NOT_ALLOWED,
};

/** `beat`: sends the heartbeats of an agent until an interrupt. @returns the exit code */
export async function beat(
  context: ServiceContext,
  flags: BeatFlags,
  [agentId = ""]: readonly string[],
): Promise<number> {
  const { caller, calls, connection, host, out } = context;
  const exhaustion = exhaustionFor(flags.status, flags);
  using interrupt = listenForInterrupts(host);
  // Fail at once if the agent does not exist or the caller may not use it.
  const { clawIdentifier } = await calls.getAgent(caller, { agentId });
  const claw = flags.claw ?? clawIdentifier;
  const say = (text: string): void => out.put(`${localTime(Date.now() * MICROS_PER_MS, Date.now())} ${text}\n`);
  const name = printable(agentId);
  const ending = Promise.withResolvers<number>();
  // Without a timeout: each attempt is shown.
  const client = createHeartbeatClient({ ...targetOf(connection), claw, timeoutMs: 0 });
  const agent = client.agent(agentId);
  const textOf = statusTextFor(context);

  client.on("connection", (change) => {
    if (change.state === "connected") {
      const pace = `every ${span(change.intervalMs)}, leases of ${span(change.leaseMs)}`;
      say(`${name} sends heartbeats on ${printable(claw)}: ${pace}`);
    } else if (change.error?.permanent === true) ending.reject(change.error);
    else
      say(`disconnected: ${printable(change.error?.message ?? "the service asked for a new stream.")} Reconnecting.`);
  });
  agent.on("status", (change) =>
    say(`${name} is ${textOf(change.status, change.exhaustion)}, reported by the service`),
  );
  agent.on("superseded", () => fail("SESSION_SUPERSEDED", "Another process sends heartbeats for this agent now."));
  agent.on("refused", (error) => {
    if (error.reason === "REPORT_OUTDATED") return;
    fail(error.reason, error.message);
  });
  const fail = (reason: string, message: string): void => {
    ending.reject(new CommandFailure(`${reason}: ${printable(message)}`, EXIT_BY_REASON[reason] ?? EXIT_FAILED));
  };
  const report = (status: ReportStatus, exhaustion: ReportedExhaustion | undefined): void => {
    sendReport(agent, status, exhaustion).then(
      (outcome) => {
        // A later report has replaced the others.
        if (outcome === "applied") say(`${name} is ${textOf(agent.status, agent.exhaustion)}`);
      },
      (error: unknown) => {
        if (error instanceof ReportError && error.reason === "CLIENT_CLOSED") return;
        say(`rejected: ${printable(error instanceof Error ? error.message : String(error))}`);
      },
    );
  };

  const over = flags.duration === undefined ? undefined : setTimeout(interrupt.stop, flags.duration);
  out.onClosed(interrupt.stop);
  interrupt.stopping.addEventListener("abort", () => ending.resolve(EXIT_OK));
  if (interrupt.stopping.aborted) ending.resolve(EXIT_OK);
  const input = flags.interactive === true ? createInterface({ input: host.stdin }) : undefined;
  input?.on("line", (line) => {
    const parsed = readLine(line);
    if (parsed === undefined) say('unknown input: use idle, on_call, busy, "exhausted rate_limit 2m" or quit');
    else if (parsed === "quit") interrupt.stop();
    else report(parsed.status, parsed.exhaustion);
  });
  if (flags.status !== undefined) report(flags.status, exhaustion);
  let goodbye = false;
  try {
    const code = await ending.promise;
    goodbye = flags.goodbye;
    return code;
  } finally {
    clearTimeout(over);
    input?.close();
    host.stdin.pause();
    const patience = AbortSignal.any([interrupt.hurrying, AbortSignal.timeout(GOODBYE_MS)]);
    if (goodbye) {
      const answered = await agent.leave({ signal: patience }).catch(() => undefined);
      say(answered === "applied" ? `${name} said goodbye` : `${name} stopped; its goodbye was not acknowledged`);
    }
    await client.close({ goodbye: false, withinMs: patience.aborted ? 0 : GOODBYE_MS });
  }
}

function sendReport(
  agent: AgentHandle,
  status: ReportStatus,
  exhaustion: ReportedExhaustion | undefined,
): Promise<ReportOutcome> {
  switch (status) {
    case "idle":
      return agent.idle();
    case "on_call":
      return agent.onCall();
    case "busy":
      return agent.busy();
    case "exhausted": {
      const { reason = "rate_limit", retryAfterMs, recoveryAt } = exhaustion ?? {};
      const at = recoveryAt === undefined ? undefined : new Date(recoveryAt / MICROS_PER_MS);
      return agent.exhausted({ reason, retryAfterMs, recoveryAt: at });
    }
  }
}

/**
 * Parses a line of standard input: a status, or `exhausted` with a reason and a duration. Undefined: the line is
 * invalid.
 */
function readLine(
  line: string,
): { status: ReportStatus; exhaustion: ReportedExhaustion | undefined } | "quit" | undefined {
  const [first = "", reason = "rate_limit", time] = line.trim().replaceAll("-", "_").split(/\s+/);
  if (first === "quit" || first === "leave") return "quit";
  const status = REPORTS.find((one) => one === first);
  if (status !== "exhausted") return status === undefined ? undefined : { status, exhaustion: undefined };
  const known = EXHAUST_REASONS.find((one) => one === reason);
  const retryAfterMs = time === undefined ? undefined : parseDuration(time);
  if (known === undefined || (time !== undefined && retryAfterMs === undefined)) return undefined;
  return { status, exhaustion: { reason: known, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) } };
}

function statusTextFor({ out }: ServiceContext) {
  return (status: AgentHandle["status"], exhaustion: ExhaustionView | undefined): string => {
    const style = styleOf(status);
    const word = status ?? "unknown";
    const painted = style === undefined ? word : out.paint(style, word);
    if (exhaustion === undefined) return painted;
    const until = timeText(micros(exhaustion.recoveryAt), Date.now());
    return `${painted} (${reasonText(exhaustion.reason)}${until === "" ? "" : ` until ${until}`})`;
  };
}

function micros(instant: Date | undefined): Micros | undefined {
  return instant === undefined ? undefined : instant.getTime() * MICROS_PER_MS;
}

function span(ms: number): string {
  return formatDuration(Math.round(ms));
}
