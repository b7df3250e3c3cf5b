import { createInterface } from "node:readline";
import { Option } from "commander";
import {
  type AgentHandle,
  createHeartbeatClient,
  type ExhaustionView,
  ReportError,
  type ReportOutcome,
} from "harborforge-agents-client";
import { formatDuration, parseDuration } from "../../config/values.ts";
import { MICROS_PER_MS } from "../../contract/time.ts";
import { EXHAUST_REASONS, type ExhaustionNews } from "../../contract/words.ts";
import { durationArgument, wordArgument } from "../arguments.ts";
import { CommandFailure } from "../call-failure.ts";
import { getAgent } from "../calls/directory-calls.ts";
import { type Session, targetOf } from "../connection/session.ts";
import { EXIT_CONFLICT, EXIT_FAILED, EXIT_NOT_ALLOWED, EXIT_NOT_FOUND, EXIT_OK } from "../exit-codes.ts";
import { listenForInterrupts } from "../interrupt.ts";
import { reasonWords, styleOf } from "../records/agent-words.ts";
import { connectedCommand, type Shell } from "../shell.ts";
import { printable } from "../terminal/printable.ts";
import { localTime, timeWords } from "../terminal/times.ts";
import { addExhaustionOptions, type ExhaustionFlags, exhaustionFor } from "./status.ts";

const REPORTS = ["idle", "on_call", "busy", "exhausted"] as const;
/** What an agent says of itself, as people write it. */
type ReportWord = (typeof REPORTS)[number];

interface Flags extends ExhaustionFlags {
  readonly claw?: string;
  readonly status?: ReportWord;
  readonly interactive?: true;
  readonly duration?: number;
  readonly goodbye: boolean;
}

const LONGEST_MS = 366 * 24 * 3_600_000;
const GOODBYE_MS = 5_000;

/** By the contract's reason, for whom another process or the service itself makes beating useless. */
const EXIT_BY_REASON: Readonly<Record<string, number>> = {
  AGENT_NOT_FOUND: EXIT_NOT_FOUND,
  SESSION_SUPERSEDED: EXIT_CONFLICT,
  WRONG_CLAW: EXIT_CONFLICT,
  PERMISSION_DENIED: EXIT_NOT_ALLOWED,
};

export function registerBeat(shell: Shell): void {
  const command = shell.program
    .command("beat")
    .description("be an agent: send its heartbeats until Ctrl-C, which says goodbye for it")
    .argument("<agent-id>", "which agent")
    .option("--claw <identifier>", "the claw that it lives in; without it, the one that the service knows")
    .addOption(
      new Option("--status <status>", "what it reports first").choices(REPORTS).argParser(wordArgument(REPORTS)),
    );
  addExhaustionOptions(command)
    .option("-i, --interactive", "takes more from standard input, a line each: idle, busy, exhausted rate_limit 2m, …")
    .option("--duration <time>", "ends by itself after a time such as 60s or 5m", durationArgument(1, LONGEST_MS))
    .option("--no-goodbye", "ends without a word: the agent keeps its lease for who comes next");
  const examples = [
    "harborforge-agents beat bob-1 --status busy",
    "harborforge-agents beat bob-1 --status exhausted --reason rate_limit --retry-after 2m",
    "harborforge-agents beat bob-1 --interactive",
  ];
  connectedCommand<Flags>(shell, command, examples, beat);
}

async function beat(session: Session, flags: Flags, [agentId = ""]: readonly string[]): Promise<number> {
  const { caller, connection, host, out } = session;
  const exhaustion = exhaustionFor(flags.status, flags);
  using interrupt = listenForInterrupts(host);
  // Who is not there, or not allowed, is told at once.
  const { clawIdentifier } = await getAgent(caller, { agentId });
  const claw = flags.claw ?? clawIdentifier;
  const say = (text: string): void => out.put(`${localTime(Date.now() * MICROS_PER_MS, Date.now())} ${text}\n`);
  const name = printable(agentId);
  const ending = Promise.withResolvers<number>();
  const client = createHeartbeatClient({ ...targetOf(connection), claw });
  const agent = client.agent(agentId);
  const words = statusWordsFor(session);

  client.on("connection", (news) => {
    if (news.state === "connected") {
      const pace = `every ${span(news.intervalMs)}, leases of ${span(news.leaseMs)}`;
      say(`${name} beats for ${printable(claw)}: ${pace}`);
    } else if (news.error?.permanent === true) ending.reject(news.error);
    else say(`cut off: ${printable(news.error?.message ?? "the service asked for a new stream")} Trying again.`);
  });
  agent.on("status", (news) => say(`${name} is ${words(news.status, news.exhaustion)}, says the service`));
  agent.on("superseded", () => fail("SESSION_SUPERSEDED", "Another process beats for this agent now."));
  agent.on("refused", (error) => {
    if (error.reason === "REPORT_OUTDATED") return;
    fail(error.reason, error.message);
  });
  const fail = (reason: string, message: string): void => {
    ending.reject(new CommandFailure(`${reason}: ${printable(message)}`, EXIT_BY_REASON[reason] ?? EXIT_FAILED));
  };
  const report = (word: ReportWord, news: ExhaustionNews | undefined): void => {
    said(agent, word, news).then(
      (outcome) => {
        // What was overtaken is not what it is.
        if (outcome === "applied") say(`${name} is ${words(agent.status, agent.exhaustion)}`);
      },
      (error: unknown) => {
        if (error instanceof ReportError && error.reason === "CLIENT_CLOSED") return;
        say(`not taken: ${printable(error instanceof Error ? error.message : String(error))}`);
      },
    );
  };

  const over = flags.duration === undefined ? undefined : setTimeout(interrupt.stop, flags.duration);
  out.onGone(interrupt.stop);
  interrupt.stopping.addEventListener("abort", () => ending.resolve(EXIT_OK));
  if (interrupt.stopping.aborted) ending.resolve(EXIT_OK);
  const input = flags.interactive === true ? createInterface({ input: host.stdin }) : undefined;
  input?.on("line", (line) => {
    const asked = readLine(line);
    if (asked === undefined) say('not understood: say idle, on_call, busy, "exhausted rate_limit 2m" or quit');
    else if (asked === "quit") interrupt.stop();
    else report(asked.word, asked.news);
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
      say(answered === "applied" ? `${name} said goodbye` : `${name} ended; its goodbye was not answered`);
    }
    await client.close({ goodbye: false, withinMs: patience.aborted ? 0 : GOODBYE_MS });
  }
}

function said(agent: AgentHandle, word: ReportWord, news: ExhaustionNews | undefined): Promise<ReportOutcome> {
  switch (word) {
    case "idle":
      return agent.idle();
    case "on_call":
      return agent.onCall();
    case "busy":
      return agent.busy();
    case "exhausted": {
      const { reason = "rate_limit", retryAfterMs, recoveryAt } = news ?? {};
      const at = recoveryAt === undefined ? undefined : new Date(recoveryAt / MICROS_PER_MS);
      return agent.exhausted({ reason, retryAfterMs, recoveryAt: at });
    }
  }
}

/** A line of standard input: a status, or `exhausted`, why, and for how long. Undefined for what is none. */
function readLine(line: string): { word: ReportWord; news: ExhaustionNews | undefined } | "quit" | undefined {
  const [first = "", reason = "rate_limit", time] = line.trim().replaceAll("-", "_").split(/\s+/);
  if (first === "quit" || first === "leave") return "quit";
  const word = REPORTS.find((one) => one === first);
  if (word !== "exhausted") return word === undefined ? undefined : { word, news: undefined };
  const known = EXHAUST_REASONS.find((one) => one === reason);
  const retryAfterMs = time === undefined ? undefined : parseDuration(time);
  if (known === undefined || (time !== undefined && retryAfterMs === undefined)) return undefined;
  return { word, news: { reason: known, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) } };
}

function statusWordsFor({ out }: Session) {
  return (status: AgentHandle["status"], exhaustion: ExhaustionView | undefined): string => {
    const style = styleOf(status);
    const word = status ?? "unknown";
    const painted = style === undefined ? word : out.paint(style, word);
    if (exhaustion === undefined) return painted;
    const until = timeWords(exhaustion.recoveryAt, Date.now());
    return `${painted} (${reasonWords(exhaustion.reason)}${until === "" ? "" : ` until ${until}`})`;
  };
}

function span(ms: number): string {
  return formatDuration(Math.round(ms));
}
