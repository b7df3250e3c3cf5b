import type { ServiceClients } from "harborforge-agents-client";

type Agents = ServiceClients["agents"];
type Requests = Parameters<Agents["heartbeat"]>[0];
type Responses = ReturnType<Agents["heartbeat"]>;

/** Times are milliseconds of the machine's clock, which is also the database's. */
export type Instant = number;

/** The statuses by their numbers in the contract. */
const STATUS_NAMES = ["", "idle", "on_call", "busy", "exhausted", "offline"];

/** The contract's number of SESSION_SUPERSEDED. */
const SUPERSEDED = 12;

/** A message of beats as it went to the connection. */
export interface SentMessage {
  readonly sequence: bigint;
  readonly sentAt: Instant;
  readonly agents: readonly string[];
  /** The reports, by agent; beats that only renew are not in it. */
  readonly reports: ReadonlyMap<string, string>;
  readonly leaving: boolean;
  /** Agents whose beat the server rejected. */
  readonly refused: Set<string>;
  ackedAt: Instant | undefined;
}

/** One heartbeat stream as seen between the client and its connection. */
export interface StreamRecord {
  /** In the order in which streams were opened, over all claws. */
  readonly order: number;
  /** The process of the claw that opened it. */
  readonly seat: string;
  readonly openedAt: Instant;
  endedAt: Instant | undefined;
  readonly messages: SentMessage[];
  /** Agents that the server reported as held by another stream. */
  readonly lost: { readonly agentId: string; readonly at: Instant }[];
}

/** Records the messages of heartbeat streams in both directions independently of the client and the service. */
export class Ledger {
  readonly streams: StreamRecord[] = [];

  /** Clients whose heartbeat streams are recorded. */
  tap(agents: Agents, seat: string): Agents {
    return { ...agents, heartbeat: (requests, options) => this.#record(agents, requests, options, seat) };
  }

  #record(agents: Agents, requests: Requests, options: Parameters<Agents["heartbeat"]>[1], seat: string): Responses {
    const record: StreamRecord = {
      order: this.streams.length,
      seat,
      openedAt: Date.now(),
      endedAt: undefined,
      messages: [],
      lost: [],
    };
    this.streams.push(record);
    return listenTo(record, agents.heartbeat(recordRequests(record, requests), options));
  }
}

async function* recordRequests(record: StreamRecord, requests: Requests): Requests {
  for await (const request of requests) {
    const reports = new Map<string, string>();
    const agents: string[] = [];
    let leaving = false;
    for (const { agentId = "", status = 0, leaving: leaves = false } of request.beats ?? []) {
      agents.push(agentId);
      leaving ||= leaves;
      if (status !== 0) reports.set(agentId, STATUS_NAMES[status] ?? "unknown");
    }
    record.messages.push({
      sequence: request.sequence ?? 0n,
      sentAt: Date.now(),
      agents,
      reports,
      leaving,
      refused: new Set(),
      ackedAt: undefined,
    });
    yield request;
  }
}

async function* listenTo(record: StreamRecord, responses: Responses): Responses {
  let unacknowledged = 0;
  try {
    for await (const response of responses) {
      const now = Date.now();
      for (const { sequence, agentId, error } of response.results) {
        if (error?.reason === SUPERSEDED) record.lost.push({ agentId, at: now });
        if (sequence === 0n || error === undefined) continue;
        record.messages.find((message) => message.sequence === sequence)?.refused.add(agentId);
      }
      for (;;) {
        const message = record.messages[unacknowledged];
        if (message === undefined || message.sequence > response.acknowledgedSequence) break;
        message.ackedAt = now;
        unacknowledged += 1;
      }
      yield response;
    }
  } finally {
    record.endedAt = Date.now();
  }
}
