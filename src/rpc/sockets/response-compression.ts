import { crc32, gzip, constants as zlib } from "node:zlib";
import type { DescMethod } from "@bufbuild/protobuf";
import type { ResponseCompression } from "@harborforge/connect-grpc-js";
import { TokenService } from "../../../gen/harborforge/agents/v1/token_service_pb.ts";

/** Smaller responses are sent as they are: they fit into a few packets, and compression would cost more than it saves. */
export const COMPRESS_FROM_BYTES = 4_096;

/** The size after compression that pays for it, as a share of the size before. */
const WORTHWHILE_SHARE = 0.8;

/** The fastest level. On pages of agents it saves 80 % of JSON and half of protobuf; level 6 saves 3 % more in twice the time. */
const LEVEL = zlib.Z_BEST_SPEED;

/** Compressions at once, half of the threads that Node also uses for decompression, files and name lookups. */
const MOST_RUNNING = 2;

/** Bytes of responses that may wait for compression. Further ones are sent as they are: a busy service does no extra work. */
const MOST_WAITING_BYTES = 8 * 1_048_576;

/** Results are kept for other callers of the same response: many watchers get the same messages. In bytes, before compression. */
const MOST_KEPT_BYTES = 4 * 1_048_576;
/** Larger responses are rarely the same. */
const LARGEST_KEPT_BYTES = 131_072;

/** The compressed response; undefined if compression does not pay. */
type Result = Uint8Array | undefined;

interface Kept {
  readonly bytes: Uint8Array;
  result: Result | Promise<Result>;
}

interface Job {
  readonly bytes: Uint8Array;
  readonly done: (result: Result) => void;
}

/**
 * Compresses the responses of both listeners, in other threads. On the event loop a response costs a checksum, and a comparison
 * with an equal one that was compressed before.
 */
export class GzipResponses implements ResponseCompression {
  readonly encoding = "gzip";
  readonly #waiting: Job[] = [];
  readonly #kept = new Map<string, Kept>();
  #keptBytes = 0;
  #waitingBytes = 0;
  #running = 0;
  #compressed = 0;

  /** How many responses were compressed since the start, without those that were compressed for another caller before. */
  get compressed(): number {
    return this.#compressed;
  }

  /** Undefined if the response is to be sent as it is. The bytes must not change afterwards. The promise never rejects. */
  compress(bytes: Uint8Array): Result | Promise<Result> {
    if (bytes.length < COMPRESS_FROM_BYTES) return undefined;
    if (bytes.length > LARGEST_KEPT_BYTES) return this.#enqueue(bytes);
    const key = `${bytes.length}:${crc32(bytes)}`;
    const kept = this.#kept.get(key);
    if (kept !== undefined && Buffer.compare(kept.bytes, bytes) === 0) return kept.result;
    const result = this.#enqueue(bytes);
    if (result !== undefined) this.#keep(key, bytes, result);
    return result;
  }

  #keep(key: string, bytes: Uint8Array, result: Promise<Result>): void {
    this.#drop(key);
    const kept: Kept = { bytes, result };
    this.#kept.set(key, kept);
    this.#keptBytes += bytes.length;
    void result.then((settled) => {
      kept.result = settled;
    });
    // A map iterates in the order of insertion: the oldest first.
    for (const oldest of this.#kept.keys()) {
      if (this.#keptBytes <= MOST_KEPT_BYTES) break;
      this.#drop(oldest);
    }
  }

  #drop(key: string): void {
    const kept = this.#kept.get(key);
    if (kept === undefined) return;
    this.#kept.delete(key);
    this.#keptBytes -= kept.bytes.length;
  }

  #enqueue(bytes: Uint8Array): Promise<Result> | undefined {
    if (this.#waitingBytes + bytes.length > MOST_WAITING_BYTES) return undefined;
    this.#waitingBytes += bytes.length;
    return new Promise((done) => {
      this.#waiting.push({ bytes, done });
      this.#next();
    });
  }

  #next(): void {
    if (this.#running >= MOST_RUNNING) return;
    const job = this.#waiting.shift();
    if (job === undefined) return;
    const { bytes, done } = job;
    this.#running += 1;
    gzip(bytes, { level: LEVEL }, (error, compressed) => {
      this.#running -= 1;
      this.#waitingBytes -= bytes.length;
      this.#compressed += 1;
      done(error === null && compressed.length <= bytes.length * WORTHWHILE_SHARE ? compressed : undefined);
      this.#next();
    });
  }
}

/**
 * Whether responses of a method may be compressed. Not those with a secret: if a caller controls other parts of a response, its
 * compressed size tells about the secret (CRIME, BREACH).
 */
export function mayCompress(method: DescMethod | undefined): boolean {
  return method !== undefined && method.parent.typeName !== TokenService.typeName;
}

/** Answers to headers. Clients send few different ones, and the answer to a new one costs a microsecond. */
const answers = new Map<string, boolean>();
const MOST_ANSWERS = 64;

/**
 * Whether a header such as `accept-encoding` or `grpc-accept-encoding` accepts gzip (RFC 9110, 12.5.3). A missing header does
 * not.
 */
export function acceptsGzip(header: string | null | undefined): boolean {
  if (header === null || header === undefined) return false;
  const known = answers.get(header);
  if (known !== undefined) return known;
  const accepted = readAccepted(header);
  if (answers.size < MOST_ANSWERS) answers.set(header, accepted);
  return accepted;
}

function readAccepted(header: string): boolean {
  for (const item of header.split(",")) {
    const [name = "", ...parameters] = item.split(";").map((part) => part.trim().toLowerCase());
    if (name !== "gzip" && name !== "*") continue;
    return !parameters.some((parameter) => /^q=0(?:\.0{0,3})?$/.test(parameter));
  }
  return false;
}
