import { readFile } from "node:fs/promises";
import { Code } from "@connectrpc/connect";
import { accessRule } from "../../src/rpc/pipeline/access-rules.ts";
import { Random } from "../chaos/random.ts";
import { type Listeners, nextAttempt } from "./attempts.ts";
import { type Answer, type Attempt, Callers, isServing } from "./callers.ts";
import type { FuzzCredentials } from "./credentials.ts";
import { NAMES } from "./hostile-values.ts";
import type { TroubledDatabase } from "./troubled-database.ts";
import { http1Status, sendWildBytes, wildBytes } from "./wild-bytes.ts";

export interface FuzzOptions {
  readonly seed: number;
  /** The number of inputs; fewer when the time is over. */
  readonly inputs: number;
  readonly forMs: number;
  readonly listeners: Listeners;
  /** The process that serves: it must be alive at the end, and its memory is measured. */
  readonly pid: number;
  /** Of the service's callers, if it requires credentials. */
  readonly credentials?: FuzzCredentials | undefined;
  /** The service's database, if it has faults meanwhile. At the end everything must work again. */
  readonly database?: TroubledDatabase | undefined;
  readonly onLine?: (line: string) => void;
  /** Ends the run, whose inputs so far are checked. */
  readonly signal?: AbortSignal;
}

export interface FuzzResult {
  readonly seed: number;
  readonly sent: number;
  readonly ms: number;
  /** The responses by kind. */
  readonly answers: ReadonlyMap<string, number>;
  /** The violations, each kind once, with the number of the first input. */
  readonly violations: readonly string[];
  /** Memory of the process after the first fifth of the inputs, at its most since then, and at the end, in megabytes. */
  readonly memory: { readonly early: number; readonly most: number; readonly end: number };
}

/** The number of concurrent inputs. More only hide each other's effects. */
const WORKERS = 16;
/** After each so many inputs, another client checks that it is served. */
const LOOK_EVERY = 250;
const WILD_SHARE = 0.12;
const WILD_MS = 60;
/** Caches, compiled code and the collector's habits; what leaks by input is far beyond it in a long run. */
const MEMORY_SLACK_MB = 200;
/** Calls on a shared connection may sometimes be cut off with it; more often means an effect on others. */
const CUT_SHARE = 0.01;

/** Codes of our own faults, or of unknown ones. UNAVAILABLE, too: all dependencies are there. */
const NEVER: ReadonlySet<Code> = new Set([
  Code.Internal,
  Code.Unknown,
  Code.DataLoss,
  Code.Unavailable,
  Code.DeadlineExceeded,
]);

/** Further permitted codes while the database has faults. */
const IN_TROUBLE: ReadonlySet<Code> = new Set([Code.Unavailable, Code.DeadlineExceeded]);
const HTTP_IN_TROUBLE: ReadonlySet<number> = new Set([503, 504]);
/** The milliseconds until everything must work again: the longest wait for a connection, and some more. */
const RECOVERY_MS = 40_000;

/** Sends inputs that follow from the seed to both listeners, and checks the responses. */
export async function runFuzz(options: FuzzOptions): Promise<FuzzResult> {
  const { seed, inputs, listeners, credentials, database } = options;
  const asAdmin: { authorization?: string } =
    credentials === undefined ? {} : { authorization: `Bearer ${credentials.admin}` };
  const callers = new Callers();
  const answers = new Map<string, number>();
  const violations = new Map<string, string>();
  const startedAt = performance.now();
  const endsAt = startedAt + options.forMs;
  let next = 0;
  let early = 0;
  let most = 0;
  let cuts = 0;

  const violation = (kind: string, input: number, what: string): void => {
    if (!violations.has(kind)) violations.set(kind, `${kind} (input ${input}): ${what}`);
  };
  const count = (what: string): void => void answers.set(what, (answers.get(what) ?? 0) + 1);

  const isTrouble = (status: number): boolean => database !== undefined && HTTP_IN_TROUBLE.has(status);
  const isTroubleCode = (code: Code): boolean => database !== undefined && IN_TROUBLE.has(code);

  async function send(input: number): Promise<void> {
    // Each input by a seed of its own: it can be made again without those before it.
    const random = new Random((seed * 1_000_003 + input) >>> 0);
    if (random.chance(WILD_SHARE)) {
      const bytes = wildBytes(random);
      const answer = await sendWildBytes(random.pick([listeners.grpc, listeners.http]), bytes, WILD_MS);
      const status = http1Status(answer);
      count(`bytes: ${status ?? (answer.length === 0 ? "nothing" : "frames")}`);
      if (status !== undefined && status >= 500 && status !== 501 && status !== 505 && !isTrouble(status)) {
        violation(`HTTP ${status}`, input, Buffer.from(bytes).toString("latin1", 0, 200));
      }
      return;
    }
    const attempt = nextAttempt(random, listeners, credentials);
    judge(input, attempt, await callers.make(attempt));
  }

  function judge(input: number, attempt: Attempt, answer: Answer): void {
    const what = `${attempt.protocol}${attempt.json ? " JSON" : ""} over HTTP/${attempt.http} ${attempt.path.slice(0, 120)}`;
    if (isLetIn(answer) && !mayCall(attempt)) {
      violation("let in", input, `${what} by ${attempt.role ?? "nobody"}: ${answer.kind}`);
    }
    switch (answer.kind) {
      case "leak":
        count(answer.kind);
        violation("a credential in an answer", input, what);
        return;
      case "refused":
        count(Code[answer.code]);
        if (NEVER.has(answer.code) && !askedForIt(attempt, answer) && !isTroubleCode(answer.code)) {
          violation(`${Code[answer.code]} ${attempt.path.split("?", 1)[0]}`, input, `${what}: ${answer.message}`);
        }
        if (!answer.hasReason) violation(`no reason with ${Code[answer.code]}`, input, `${what}: ${answer.message}`);
        return;
      case "http":
        count(`HTTP ${answer.status}`);
        if (answer.status >= 500 && !isTrouble(answer.status)) violation(`HTTP ${answer.status}`, input, what);
        return;
      case "silent":
        count(answer.kind);
        // A call has ten seconds, a stalled database takes them, and then it says so.
        if (database === undefined) violation("no answer", input, what);
        return;
      case "cut":
        // A connection is shared: a violation of its rules ends it for its other calls.
        cuts += 1;
        count(`cut: ${answer.why}`);
        return;
      default:
        count(answer.kind);
    }
  }

  /** Users and agents that calls can be about; some were deleted by the inputs. */
  async function populate(names: readonly string[]): Promise<void> {
    for (const name of names) {
      await callers.make({
        address: listeners.http,
        http: 1,
        protocol: "connect",
        json: true,
        path: "/harborforge.agents.v1.UserService/CreateUser",
        headers: asAdmin,
        body: Buffer.from(JSON.stringify({ username: name, agentId: name, clawIdentifier: "fuzz-claw" })),
        withinMs: 10_000,
        streams: false,
      });
    }
  }

  async function look(input: number): Promise<void> {
    await populate(new Random(input).sample(NAMES, 4));
    const memory = await memoryOf(options.pid);
    if (memory === undefined) violation("the process is gone", input, "it crashed");
    else if (input >= inputs / 5) {
      if (early === 0) early = memory;
      most = Math.max(most, memory);
    }
    for (const address of database === undefined ? [listeners.grpc, listeners.http] : []) {
      if (!(await isServing(address, asAdmin.authorization))) violation("the next call is not served", input, address);
    }
    options.onLine?.(
      `${input} inputs, ${Math.round(performance.now() - startedAt)} ms, ${memory ?? "?"} MB, ${cuts} cut, ${violations.size} violations`,
    );
  }

  /** The faults of the database are over. */
  async function recover(): Promise<void> {
    if (database === undefined) return;
    await database.end();
    const deadline = performance.now() + RECOVERY_MS;
    for (const address of [listeners.grpc, listeners.http]) {
      while (!(await isServing(address, asAdmin.authorization))) {
        if (performance.now() < deadline) continue;
        violation("is not well again", next, address);
        break;
      }
    }
  }

  async function work(): Promise<void> {
    while (
      next < inputs &&
      performance.now() < endsAt &&
      options.signal?.aborted !== true &&
      !violations.has("the process is gone")
    ) {
      const input = next;
      next += 1;
      await send(input);
      if (input % LOOK_EVERY === 0) await look(input);
    }
  }

  try {
    await populate(NAMES);
    database?.begin(new Random(seed));
    await Promise.all(Array.from({ length: WORKERS }, work));
    await recover();
    await look(next);
    const end = (await memoryOf(options.pid)) ?? 0;
    if (cuts > next * CUT_SHARE) violation("calls are cut off", next, `${cuts} of ${next}`);
    if (early > 0 && end > early + MEMORY_SLACK_MB) violation("memory", next, `${early} MB grew to ${end} MB`);
    return {
      seed,
      sent: next,
      ms: Math.round(performance.now() - startedAt),
      answers,
      violations: [...violations.values()],
      memory: { early, most, end },
    };
  } finally {
    callers.close();
  }
}

/** Codes that only a handler returns, or that depend on stored rows. */
const FROM_WITHIN: ReadonlySet<Code> = new Set([
  Code.NotFound,
  Code.AlreadyExists,
  Code.Aborted,
  Code.FailedPrecondition,
]);

function isLetIn(answer: Answer): boolean {
  return answer.kind === "ok" || (answer.kind === "refused" && FROM_WITHIN.has(answer.code));
}

/** By the table of methods and roles. */
function mayCall({ method, role }: Attempt): boolean {
  if (method === undefined) return true;
  const callers = accessRule(method)?.callers;
  if (callers === "public") return true;
  return role !== undefined && (callers === "authenticated" || callers?.has(role) === true);
}

/** A deadline that no call can meet, or compression without a declaration, for which the protocols prescribe INTERNAL. */
function askedForIt({ headers = {} }: Attempt, { code, message }: { code: Code; message: string }): boolean {
  if (code === Code.Internal) return message.startsWith("a message is marked as compressed, but no compression was");
  return code === Code.DeadlineExceeded && headers["grpc-timeout"] === "1n";
}

/** The resident memory of a process, in megabytes; undefined when it is gone. */
async function memoryOf(pid: number): Promise<number | undefined> {
  const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
  const kilobytes = /^VmRSS:\s+(\d+) kB/m.exec(status)?.[1];
  return kilobytes === undefined ? undefined : Math.round(Number(kilobytes) / 1_024);
}
