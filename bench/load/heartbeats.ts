// Sends heartbeats over many streams, each with one message in flight, and measures the time to the acknowledgement.
import { readFile } from "node:fs/promises";
import { fromBinary } from "@bufbuild/protobuf";
import grpc from "@grpc/grpc-js";
import { HeartbeatResponseSchema } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { doJobs } from "../harness/jobs.ts";
import { AGENTS_PER_CLAW } from "../harness/stage.ts";
import { beatsOf, furtherBeatsOf, readSequence, withSequence } from "./beat-messages.ts";
import { Latency, type LatencyFigures } from "./latency.ts";

/** The service and the echo get the same messages; etcd gets the keep-alive of one lease for each stream. */
export type Target = "service" | "echo" | "etcd";

export interface HeartbeatJob {
  readonly address: string;
  /** The kind of server. */
  readonly target: Target;
  readonly connections: number;
  readonly streams: number;
  readonly agentsPerStream: number;
  readonly prefix: string;
  /** Milliseconds between two messages of a stream; 0: send the next one as soon as the last one is acknowledged. */
  readonly everyMs: number;
}

export interface HeartbeatFigures extends LatencyFigures {
  readonly messages: number;
  /** Received messages of any kind. */
  readonly answers: number;
  readonly ms: number;
  /** Processor time of this process: if it is near `ms`, the load generator was the limit. */
  readonly loadCpuMs: number;
  /** Bytes written to and read from the connections, with HTTP/2. */
  readonly sentBytes: number;
  readonly receivedBytes: number;
}

const PATHS: Readonly<Record<Target, string>> = {
  service: "/harborforge.agents.v1.AgentService/Heartbeat",
  echo: "/bench.Echo/Stream",
  etcd: "/etcdserverpb.Lease/LeaseKeepAlive",
};

/** Long before a lease expires, and after all other subjects. */
const IDLE_MS = 12_000;
const LOOK_FOR_IDLE_MS = 1_000;
/** One of this many responses of a stream is decoded, to check that beats were applied. */
const LOOK_EVERY = 50;

const identity = (buffer: Buffer): Buffer => buffer;

class Fleet {
  readonly #clients: grpc.Client[] = [];
  readonly #sends: (() => void)[] = [];
  readonly #job: HeartbeatJob;
  #latency = new Latency();
  #messages = 0;
  #answers = 0;
  #failure: string | undefined;
  #closing = false;
  #working = false;
  /** Streams whose last message was acknowledged, and when. */
  readonly #idle = new Map<() => void, number>();
  readonly #timer: NodeJS.Timeout;

  constructor(job: HeartbeatJob) {
    this.#job = job;
    for (let n = 0; n < job.connections; n += 1) {
      this.#clients.push(
        // One connection for each channel: otherwise equal channels share one.
        new grpc.Client(job.address, grpc.credentials.createInsecure(), { "grpc.use_local_subchannel_pool": 1 }),
      );
    }
    for (let n = 0; n < job.streams; n += 1) this.#open(job, n);
    // Keeps its agents alive while others are measured.
    this.#timer = setInterval(() => {
      const due = performance.now() - IDLE_MS;
      for (const [send, since] of this.#idle) if (since < due) send();
    }, LOOK_FOR_IDLE_MS);
  }

  async ready(): Promise<void> {
    const deadline = performance.now() + 60_000;
    while (this.#idle.size < this.#sends.length) {
      if (this.#failure !== undefined) throw new Error(this.#failure);
      if (performance.now() > deadline) throw new Error("not every stream was acknowledged");
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** Counts the work of the streams for `ms`. */
  async count(ms: number): Promise<HeartbeatFigures> {
    this.#latency = new Latency();
    this.#messages = 0;
    this.#answers = 0;
    const io = await bytes();
    const cpu = process.cpuUsage();
    const begin = performance.now();
    await new Promise((resolve) => setTimeout(resolve, ms));
    const took = performance.now() - begin;
    const { user, system } = process.cpuUsage(cpu);
    const [messages, answers] = [this.#messages, this.#answers];
    const now = await bytes();
    if (this.#failure !== undefined) throw new Error(this.#failure);
    if (messages === 0) throw new Error("nothing was acknowledged");
    return {
      messages,
      answers,
      ms: took,
      loadCpuMs: (user + system) / 1_000,
      sentBytes: now.sent - io.sent,
      receivedBytes: now.received - io.received,
      ...this.#latency.figures,
    };
  }

  /** Spread over the interval, because real agents do not beat at the same moment. */
  work(): void {
    this.#working = true;
    for (const [n, send] of this.#sends.entries()) {
      const later = (n / this.#sends.length) * this.#job.everyMs;
      setTimeout(() => {
        if (this.#working && this.#idle.has(send)) send();
      }, later);
    }
  }

  rest(): void {
    this.#working = false;
  }

  close(): void {
    this.#closing = true;
    clearInterval(this.#timer);
    // Each call has an error, which is irrelevant here.
    for (const client of this.#clients) client.close();
  }

  #open(job: HeartbeatJob, n: number): void {
    const client = this.#clients[n % this.#clients.length];
    if (client === undefined) throw new TypeError("no connection");
    const first = n * job.agentsPerStream;
    const agentIds = Array.from({ length: job.agentsPerStream }, (_, index) => `${job.prefix}${first + index + 1}`);
    const call = client.makeBidiStreamRequest(PATHS[job.target], identity, identity);
    const hello = beatsOf(agentIds, `claw-${Math.floor(first / AGENTS_PER_CLAW)}`, `bench-${n}`);
    const beats = furtherBeatsOf(agentIds);
    let sequence = 0;
    let sentAt = 0;
    const send = (): void => {
      this.#idle.delete(send);
      if (this.#closing) return;
      sequence += 1;
      sentAt = performance.now();
      // A keep-alive has only the id of the lease, in the field where a heartbeat has its sequence.
      if (job.target === "etcd") call.write(withSequence(n + 1, Buffer.alloc(0)));
      else call.write(withSequence(sequence, sequence === 1 ? hello : beats));
    };
    this.#sends.push(send);
    call.on("data", (message: Buffer) => {
      this.#answers += 1;
      if (job.target !== "etcd" && readSequence(message) !== sequence) return;
      if (job.target === "service" && sequence % LOOK_EVERY === 1) {
        const refused = fromBinary(HeartbeatResponseSchema, message).results.find(({ error }) => error !== undefined);
        if (refused !== undefined) this.#failure ??= `${refused.agentId} was refused: ${refused.error?.message}`;
      }
      this.#messages += 1;
      const now = performance.now();
      this.#latency.record(now - sentAt);
      this.#idle.set(send, now);
      if (!this.#working) return;
      if (job.everyMs === 0) send();
      else {
        setTimeout(
          () => {
            // A stream that paused in between was continued elsewhere.
            if (this.#working && this.#idle.get(send) === now) send();
          },
          Math.max(0, job.everyMs - (now - sentAt)),
        );
      }
    });
    call.on("error", (error) => {
      if (!this.#closing) this.#failure ??= `a stream ended: ${error.message}`;
    });
    send();
  }
}

/** Bytes that this process wrote and read so far, nearly all on connections. Zero if Linux does not report them. */
async function bytes(): Promise<{ sent: number; received: number }> {
  const text = await readFile("/proc/self/io", "utf8").catch(() => "");
  const field = (name: string) => Number(new RegExp(`^${name}: (\\d+)$`, "m").exec(text)?.[1] ?? 0);
  return { sent: field("wchar"), received: field("rchar") };
}

const fleets = new Map<string, Fleet>();

interface Named {
  readonly name: string;
}

function named(name: string): Fleet {
  const fleet = fleets.get(name);
  if (fleet === undefined) throw new Error(`no fleet ${name}`);
  return fleet;
}

doJobs({
  /** Opens the streams. Resolves when each has an acknowledged message. */
  open: async ({ name, fleet }: Named & { fleet: HeartbeatJob }) => {
    const opened = new Fleet(fleet);
    fleets.set(name, opened);
    await opened.ready();
    return {};
  },
  work: async ({ name }: Named) => {
    named(name).work();
    return {};
  },
  count: async ({ name, ms }: Named & { ms: number }) => await named(name).count(ms),
  rest: async ({ name }: Named) => {
    named(name).rest();
    return {};
  },
  close: async ({ name }: Named) => {
    named(name).close();
    fleets.delete(name);
    return {};
  },
});
