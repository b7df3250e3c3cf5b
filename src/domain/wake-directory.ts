import type { WakeState } from "../../common/contract/enum-names.ts";
import type { Micros } from "../../common/contract/time.ts";
import type { Agent } from "./agent.ts";
import type { Call, Mutation, Page, PageQuery } from "./directories.ts";
import type { NewWake, Pause, PauseTarget, Wake } from "./wake.ts";

/** The requester of a wake. */
export interface WakeCaller {
  /** The owner of wakes that it creates (`requesterOf`). */
  readonly principal: string;
  /** `service:…`, `user:…`: stored in the transition. */
  readonly actor: string;
  /** Whether it may act on the wakes of others. */
  readonly mayAll: boolean;
  /** Absent: no call requested the change, so it may wait as long as any change. */
  readonly call?: Call;
}

export interface WakeQuery extends PageQuery {
  readonly agentId: string | undefined;
  /** Empty: all. */
  readonly states: readonly WakeState[];
  readonly newestFirst: boolean;
}

/** Reads and changes wakes and pauses. Methods reject with a `Refusal`. */
export interface WakeDirectory {
  /** The wake and its agent afterwards; `agent` is undefined if it was deleted since. */
  wake(
    wake: NewWake,
    expectedRevision: bigint | undefined,
    caller: WakeCaller,
  ): Promise<{ readonly wake: Wake; readonly agent: Agent | undefined }>;
  cancel(wakeId: string, note: string, caller: WakeCaller): Promise<Wake>;
  get(wakeId: string): Promise<Wake>;
  /** `revision`: the page shows all changes up to it. */
  list(query: WakeQuery): Promise<Page<Wake> & { readonly revision: bigint }>;
  pause(target: PauseTarget, until: Micros | undefined, note: string, mutation: Mutation): Promise<Pause>;
  resume(target: PauseTarget, mutation: Mutation): Promise<void>;
  pauses(page: PageQuery): Promise<Page<Pause>>;
}

/** The wakes that callers follow. */
export interface WakeFollowing {
  /**
   * The wake at once, and then its changes, until it has ended. Ends when `signal` is aborted.
   *
   * @throws Refusal `WAKE_NOT_FOUND`, `DRAINING` (also by age), `DATABASE_UNAVAILABLE`
   */
  follow(wakeId: string, signal: AbortSignal): AsyncIterable<Wake>;
}
