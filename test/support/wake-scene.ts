import { createHash } from "node:crypto";
import type { WakeState } from "../../common/contract/enum-names.ts";
import { MICROS_PER_MS } from "../../common/contract/time.ts";
import type { Refusal } from "../../src/domain/errors.ts";
import type { NewWake, Wake } from "../../src/domain/wake.ts";
import type { WakeCaller } from "../../src/domain/wake-directory.ts";
import type { Replica } from "./replica.ts";
import { reports, type TestStream } from "./replica-stream.ts";
import { until } from "./until.ts";

/** The calendar, which wakes agents in most tests. */
export const CALENDAR: WakeCaller = { principal: "service:calendar", actor: "service:calendar", mayAll: false };
export const ADMIN: WakeCaller = { principal: "admin:ada", actor: "user:ada", mayAll: true };

/** A wake that expires in a minute, by the clock of the database that the replica has read. */
export function wakeOf(replica: Replica, wakeId: string, agentId: string, more: Partial<NewWake> = {}): NewWake {
  return {
    wakeId,
    agentId,
    claim: "busy",
    ifUnavailable: "refuse",
    answerWithinMs: 30_000,
    maxOffers: 3,
    expiresAt: aheadMs(replica, 60_000),
    payload: new TextEncoder().encode(`work of ${wakeId}`),
    ...more,
  };
}

/** An instant of the database's clock, so many milliseconds ahead. */
export function aheadMs(replica: Replica, ms: number): number {
  return replica.database.clock.now() + ms * MICROS_PER_MS;
}

/** An agent that is idle, held by a stream that takes wakes. */
export async function idleTaker(
  replica: Replica,
  agentId: string,
  { instanceId = "process-1", clawIdentifier = "claw-1", generation = 1n } = {},
): Promise<TestStream> {
  await replica.createAgent(agentId, clawIdentifier);
  return await taker(replica, agentId, { instanceId, clawIdentifier, generation });
}

/** A stream that takes wakes, and holds an agent that exists. */
export async function taker(
  replica: Replica,
  agentId: string,
  { instanceId = "process-1", clawIdentifier = "claw-1", generation = 1n } = {},
): Promise<TestStream> {
  const stream = replica.stream({ clawIdentifier, instanceId, generation, takesWakes: true });
  await stream.say({ agentId, leaving: false, beat: { report: undefined, knownRevision: undefined } });
  return stream;
}

export async function wake(replica: Replica, wakeId: string, agentId: string, more: Partial<NewWake> = {}) {
  return await replica.wakes.wake(wakeOf(replica, wakeId, agentId, more), undefined, CALENDAR);
}

/** Resolves with the wake when it is in this state. */
export function untilWake(replica: Replica, wakeId: string, state: WakeState, withinMs?: number): Promise<Wake> {
  return until(
    `${wakeId} is ${state}`,
    async () => {
      const found = await replica.wakes.get(wakeId);
      return found.state === state && found;
    },
    withinMs,
  );
}

/** The reason of a refusal. Rejects if nothing was refused. */
export async function refusalOf(work: Promise<unknown>): Promise<Refusal> {
  try {
    await work;
  } catch (error) {
    return error as Refusal;
  }
  throw new Error("nothing was refused");
}

/** The rows of `wakes` by name, as a whole: two equal digests mean that nothing changed. */
export async function wakesDigest(replica: Replica): Promise<string> {
  const [row] = await replica.query<{ digest: string }>(
    "SELECT coalesce(string_agg(w::text, ',' ORDER BY w.id), '') AS digest FROM wakes w",
  );
  return createHash("sha256")
    .update(row?.digest ?? "")
    .digest("hex");
}

/** The agent reports a status with its newest revision. */
export async function reportKnowing(replica: Replica, stream: TestStream, agentId: string, status: "idle" | "busy") {
  const { revision } = await replica.agents.get({ agentId });
  return await stream.say(reports(agentId, status, revision));
}
