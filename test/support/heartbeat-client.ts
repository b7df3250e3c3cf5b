import type { MessageInitShape } from "@bufbuild/protobuf";
import { type Client, Code, ConnectError } from "@connectrpc/connect";
import type {
  AgentBeatResult,
  AgentBeatSchema,
  AgentService,
  HeartbeatRequestSchema,
  HeartbeatResponse,
} from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { PushedInput } from "./pushed-input.ts";
import { until } from "./until.ts";

type Beat = MessageInitShape<typeof AgentBeatSchema>;
type Opening = Pick<MessageInitShape<typeof HeartbeatRequestSchema>, "clawIdentifier" | "instanceId" | "generation">;

/** A claw's heartbeat stream over a real connection, with every way to end a stream. */
export class HeartbeatClient implements AsyncDisposable {
  readonly responses: HeartbeatResponse[] = [];
  acknowledged = 0n;
  /** How the stream ended; undefined while it is open, `end` after OK. */
  ended: "end" | ConnectError | undefined;
  readonly #input = new PushedInput<MessageInitShape<typeof HeartbeatRequestSchema>>();
  readonly #abort = new AbortController();
  readonly #done: Promise<void>;
  #opening: Opening | undefined;
  #sequence = 0n;

  constructor(client: Client<typeof AgentService>, opening: Opening = {}) {
    this.#opening = opening;
    this.#done = this.#read(client).then(
      () => {
        this.ended = "end";
      },
      (error: unknown) => {
        this.ended = ConnectError.from(error);
      },
    );
  }

  get results(): AgentBeatResult[] {
    return this.responses.flatMap(({ results }) => results);
  }

  send(...beats: Beat[]): bigint {
    this.#sequence += 1n;
    // The claw fields of a stream count in the first message only.
    this.#input.send({ sequence: this.#sequence, beats, ...this.#opening });
    this.#opening = undefined;
    return this.#sequence;
  }

  /** Sends one message and waits for its acknowledgement. @returns its results */
  async say(...beats: Beat[]): Promise<AgentBeatResult[]> {
    const sequence = this.send(...beats);
    await until(`message ${sequence} is acknowledged`, () => {
      if (this.ended instanceof ConnectError) throw this.ended;
      return this.acknowledged >= sequence;
    });
    return this.results.filter((result) => result.sequence === sequence);
  }

  /** Sends a message that is invalid. */
  repeatSequence(): void {
    this.#input.send({ sequence: this.#sequence, beats: [] });
  }

  /** Half-closes. */
  end(): void {
    this.#input.end();
  }

  cancel(): void {
    this.#abort.abort();
  }

  async untilEnded(): Promise<"end" | ConnectError> {
    return await until("the stream ends", () => this.ended);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cancel();
    await this.#done;
  }

  async #read(client: Client<typeof AgentService>): Promise<void> {
    for await (const response of client.heartbeat(this.#input, { signal: this.#abort.signal })) {
      this.responses.push(response);
      if (response.acknowledgedSequence > this.acknowledged) this.acknowledged = response.acknowledgedSequence;
    }
  }
}

/** The ways in which a client ends its stream, each until it has ended. */
export const STREAM_ENDS = {
  async cancel(client: HeartbeatClient): Promise<void> {
    client.cancel();
    await client.untilEnded();
  },

  async halfClose(client: HeartbeatClient): Promise<void> {
    client.end();
    const ended = await client.untilEnded();
    if (ended !== "end") throw ended;
  },

  /** By a sequence that does not grow. */
  async breakRules(client: HeartbeatClient): Promise<void> {
    client.repeatSequence();
    const ended = await client.untilEnded();
    if (ended === "end" || ended.code !== Code.InvalidArgument) throw new Error("no refusal", { cause: ended });
  },
};
