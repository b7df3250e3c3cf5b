// Sends heartbeats over many streams, each with one message underway, and times the acknowledgements.
import grpc from "@grpc/grpc-js";
import { build, type Histogram } from "hdr-histogram-js";
import { doJobs } from "../harness/jobs.ts";
import { AGENTS_PER_CLAW } from "../harness/stage.ts";
import { beatsOf, readSequence, withSequence } from "./beat-messages.ts";

/** The service and an echo take the same messages; etcd takes the keep-alive of one lease a stream. */
export type Target = "service" | "echo" | "etcd";

export interface HeartbeatJob {
  readonly address: string;
  /** What answers there. */
  readonly target: Target;
  readonly connections: number;
  readonly streams: number;
  readonly agentsPerStream: number;
  readonly prefix: string;
  /** Milliseconds between two messages of a stream; 0: the next one goes when the last one is acknowledged. */
  readonly everyMs: number;
}

export interface HeartbeatFigures {
  readonly messages: number;
  readonly ms: number;
  /** Of this process: near `ms`, it was the limit. */
  readonly loadCpuMs: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

const PATHS: Readonly<Record<Target, string>> = {
  service: "/harborforge.agents.v1.AgentService/Heartbeat",
  echo: "/bench.Echo/Stream",
  etcd: "/etcdserverpb.Lease/LeaseKeepAlive",
};

const KEEP_ALIVE_MS = 8_000;

const identity = (buffer: Buffer): Buffer => buffer;

class Fleet {
  readonly #clients: grpc.Client[] = [];
  readonly #streams: {
    call: grpc.ClientDuplexStream<Buffer, Buffer>;
    beats: Buffer;
    sequence: number;
    sentAt: number;
  }[] = [];
  readonly #everyMs: number;
  #histogram: Histogram = newHistogram();
  #messages = 0;
  #failure: string | undefined;
  #closing = false;
  #working = false;
  readonly #idle = new Set<() => void>();
  readonly #timer: NodeJS.Timeout;

  constructor(job: HeartbeatJob) {
    this.#everyMs = job.everyMs;
    for (let n = 0; n < job.connections; n += 1) {
      this.#clients.push(
        // Each its own connection: equal channels share one otherwise.
        new grpc.Client(job.address, grpc.credentials.createInsecure(), { "grpc.use_local_subchannel_pool": 1 }),
      );
    }
    for (let n = 0; n < job.streams; n += 1) this.#open(job, n);
    // While others are measured its agents stay alive.
    this.#timer = setInterval(() => this.#wake(), KEEP_ALIVE_MS);
  }

  async ready(): Promise<void> {
    const deadline = performance.now() + 60_000;
    while (this.#idle.size < this.#streams.length) {
      if (this.#failure !== undefined) throw new Error(this.#failure);
      if (performance.now() > deadline) throw new Error("not every stream was acknowledged");
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** All streams send; what they do counts for `ms`. */
  async count(ms: number): Promise<HeartbeatFigures> {
    this.#histogram = newHistogram();
    this.#messages = 0;
    const cpu = process.cpuUsage();
    const begin = performance.now();
    await new Promise((resolve) => setTimeout(resolve, ms));
    const took = performance.now() - begin;
    const { user, system } = process.cpuUsage(cpu);
    if (this.#failure !== undefined) throw new Error(this.#failure);
    return {
      messages: this.#messages,
      ms: took,
      loadCpuMs: (user + system) / 1_000,
      p50Ms: this.#histogram.getValueAtPercentile(50) / 1_000,
      p99Ms: this.#histogram.getValueAtPercentile(99) / 1_000,
    };
  }

  work(): void {
    this.#working = true;
    this.#wake();
  }

  rest(): void {
    this.#working = false;
  }

  #wake(): void {
    for (const send of this.#idle) send();
  }

  close(): void {
    this.#closing = true;
    clearInterval(this.#timer);
    for (const { call } of this.#streams) call.cancel();
    for (const client of this.#clients) client.close();
  }

  #open(job: HeartbeatJob, n: number): void {
    const client = this.#clients[n % this.#clients.length];
    if (client === undefined) throw new TypeError("no connection");
    const first = n * job.agentsPerStream;
    const agentIds = Array.from({ length: job.agentsPerStream }, (_, index) => `${job.prefix}${first + index + 1}`);
    const call = client.makeBidiStreamRequest(PATHS[job.target], identity, identity);
    const stream = {
      call,
      beats: beatsOf(agentIds, `claw-${Math.floor(first / AGENTS_PER_CLAW)}`, `bench-${n}`),
      sequence: 1,
      sentAt: performance.now(),
    };
    this.#streams.push(stream);
    // A keep-alive has the lease's id alone, in the field where a heartbeat has its sequence.
    const next = (): Buffer =>
      job.target === "etcd" ? withSequence(n + 1, Buffer.alloc(0)) : withSequence(stream.sequence, stream.beats);
    const send = (): void => {
      if (this.#closing) return;
      this.#idle.delete(send);
      stream.sequence += 1;
      stream.sentAt = performance.now();
      call.write(next());
    };
    call.on("data", (message: Buffer) => {
      if (job.target !== "etcd" && readSequence(message) !== stream.sequence) return;
      this.#messages += 1;
      const now = performance.now();
      this.#histogram.recordValue(Math.max(1, Math.round((now - stream.sentAt) * 1_000)));
      if (!this.#working) {
        this.#idle.add(send);
        return;
      }
      if (this.#everyMs === 0) send();
      else setTimeout(send, Math.max(0, this.#everyMs - (now - stream.sentAt)));
    });
    call.on("error", (error) => {
      if (!this.#closing) this.#failure ??= `a stream ended: ${error.message}`;
    });
    call.write(next());
  }
}

function newHistogram(): Histogram {
  return build({ lowestDiscernibleValue: 1, highestTrackableValue: 600_000_000, numberOfSignificantValueDigits: 3 });
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
  /** Opens the streams, and resolves when each has been acknowledged. */
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
