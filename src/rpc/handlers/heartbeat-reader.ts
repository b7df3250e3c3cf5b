import { ConnectError } from "@connectrpc/connect";
import type { HeartbeatRequest } from "../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { Refusal } from "../../domain/errors.ts";
import type { HeartbeatSession, Heartbeats } from "../backend.ts";
import { beatsOf } from "../convert/request.ts";
import { checkEnvelope, sessionOptionsOf } from "./heartbeat-envelope.ts";

/**
 * The reading half of a heartbeat stream: judges envelopes, opens the session with the first message and feeds it.
 * Reads from its making on until the input ends, a message is wrong, or it is disposed of; the signal disposes of it.
 */
export class HeartbeatReader {
  /** The stream's session, once there is one; undefined when reading ended before the first message. Never rejects. */
  readonly session: Promise<HeartbeatSession | undefined>;

  readonly #heartbeats: Heartbeats;
  readonly #signal: AbortSignal;
  readonly #announce: (session: HeartbeatSession | undefined) => void;
  readonly #onAbort = (): void => this[Symbol.dispose]();
  #opened: HeartbeatSession | undefined;
  #failure: { readonly reason: unknown } | undefined;
  #disposed = false;

  constructor(heartbeats: Heartbeats, requests: AsyncIterable<HeartbeatRequest>, signal: AbortSignal) {
    const { promise, resolve } = Promise.withResolvers<HeartbeatSession | undefined>();
    this.session = promise;
    this.#announce = resolve;
    this.#heartbeats = heartbeats;
    this.#signal = signal;
    signal.addEventListener("abort", this.#onAbort);
    if (signal.aborted) this[Symbol.dispose]();
    else void this.#read(requests);
  }

  /** Throws what ended the reading, if it was not the client's own end of it. */
  throwIfFailed(): void {
    if (this.#failure !== undefined) throw this.#failure.reason;
  }

  /** Closes the session, in every way that a stream can end. Leases run on. May be repeated. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#signal.removeEventListener("abort", this.#onAbort);
    this.#announce(undefined);
    this.#opened?.close();
  }

  /**
   * Never rejects: nobody waits for it. The input is not given up (`return`) where reading ends early: that may destroy
   * the connection's stream, and with it the answers that are still due. It ends with the call.
   */
  async #read(requests: AsyncIterable<HeartbeatRequest>): Promise<void> {
    let previous = 0n;
    try {
      const input = requests[Symbol.asyncIterator]();
      for (let next = await input.next(); next.done !== true; next = await input.next()) {
        if (this.#disposed) return;
        const request = next.value;
        checkEnvelope(request, previous);
        previous = request.sequence;
        await this.#sessionFor(request).submit(request.sequence, beatsOf(request.beats));
        if (this.#disposed) return;
      }
      this.#finish();
    } catch (reason) {
      this.#fail(reason);
    }
  }

  #sessionFor(request: HeartbeatRequest): HeartbeatSession {
    if (this.#opened === undefined) {
      this.#opened = this.#heartbeats.openSession(sessionOptionsOf(request));
      this.#announce(this.#opened);
    }
    return this.#opened;
  }

  /** The client, or a wrong message, ended the input: what is due is still said. */
  #finish(): void {
    if (this.#disposed) return;
    this.#opened?.finish();
    this.#announce(undefined);
  }

  #fail(reason: unknown): void {
    if (this.#disposed) return;
    this.#failure = { reason };
    // Else a broken connection or a fault of ours: there is nobody to tell, or nothing to rely on.
    if (reason instanceof Refusal || reason instanceof ConnectError) this.#opened?.finish();
    else this.#opened?.close();
    this.#announce(undefined);
  }
}
