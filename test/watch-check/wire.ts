/** The service without a client library: JSON over HTTP, by the rules of the Connect protocol. */
import http2 from "node:http2";

const ERROR_AFTER_MS = 5_000;

/** The error of the service. */
export class WireError extends Error {
  /** The whole error, details decoded as text: reasons can be searched in it. */
  readonly text: string;

  constructor(message: string, text = "") {
    super(message);
    this.text = `${message} ${text}`;
  }
}

export interface ErrorJson {
  readonly code?: string;
  readonly message?: string;
  readonly details?: readonly { readonly value?: string }[];
}

function wireError({ code, message, details = [] }: ErrorJson): WireError {
  const texts = details.map(({ value = "" }) => Buffer.from(value, "base64").toString("latin1"));
  return new WireError(`${code}: ${message}`, texts.join(" "));
}

/** One unary call. `method` as `AgentService/GetAgent`. */
export async function call<Answer>(
  base: string,
  method: string,
  request: object,
  withinMs = ERROR_AFTER_MS,
): Promise<Answer> {
  const response = await fetch(`${base}/harborforge.agents.v1.${method}`, {
    method: "POST",
    headers: { "content-type": "application/json", "connect-protocol-version": "1" },
    body: JSON.stringify(request),
    signal: AbortSignal.timeout(withinMs),
  });
  const json = await response.json();
  if (!response.ok) throw wireError(json as ErrorJson);
  return json as Answer;
}

export interface OpenWatch {
  /** Stops reading, so that the server has to wait. */
  stall(): void;
  goOn(): void;
  /** Cuts the connection. */
  cut(): void;
  /** The state of the stream, to diagnose its silence. */
  describe(): string;
  /** Resolves when the stream has ended: with the server's error, or with the error of the connection. */
  readonly ended: Promise<Error | undefined>;
}

/**
 * A watch on a connection of its own, with small windows of flow control: a stalled reader has an effect soon.
 */
export function openWatch<Message>(base: string, request: object, onMessage: (message: Message) => void): OpenWatch {
  const session = http2.connect(base, { settings: { initialWindowSize: 1_024 } });
  const { promise, resolve } = Promise.withResolvers<Error | undefined>();
  session.on("error", resolve);
  session.on("close", () => resolve(new Error("the connection was closed")));
  const stream = session.request({
    ":method": "POST",
    ":path": "/harborforge.agents.v1.AgentService/WatchAgents",
    "content-type": "application/connect+json",
    "connect-protocol-version": "1",
  });
  const body = Buffer.from(JSON.stringify(request));
  const head = Buffer.alloc(5);
  head.writeUInt32BE(body.length, 1);
  stream.end(Buffer.concat([head, body]));
  const openedAt = performance.now();
  let connected = false;
  session.once("connect", () => {
    connected = true;
  });
  let bytes = 0;
  let status = 0;
  let rest = Buffer.alloc(0);
  stream.on("response", (headers) => {
    status = Number(headers[":status"]);
  });
  stream.on("error", resolve);
  stream.on("data", (chunk: Buffer) => {
    bytes += chunk.length;
    rest = Buffer.concat([rest, chunk]);
    while (status === 200 && rest.length >= 5 && rest.length >= 5 + rest.readUInt32BE(1)) {
      const end = 5 + rest.readUInt32BE(1);
      const json = JSON.parse(rest.subarray(5, end).toString("utf8"));
      const last = (rest[0] ?? 0) & 2;
      rest = rest.subarray(end);
      if (last !== 0) resolve(json.error === undefined ? undefined : wireError(json.error));
      else onMessage(json);
    }
  });
  stream.on("close", () => resolve(new Error(`the stream was closed with code ${stream.rstCode}`)));
  stream.on("end", () => resolve(new Error(`the stream ended with status ${status}: ${rest.toString("utf8")}`)));
  const ended = promise.finally(() => session.destroy());
  const describe = () => {
    const age = Math.round(performance.now() - openedAt);
    const { localWindowSize } = stream.state;
    return `${connected ? "connected" : "not connected"}, status ${status}, ${bytes} bytes in ${age} ms, ${rest.length} of them unread, ${stream.isPaused() ? "paused" : "flowing"}, window ${localWindowSize}`;
  };
  return {
    stall: () => stream.pause(),
    goOn: () => stream.resume(),
    cut: () => session.destroy(),
    describe,
    ended,
  };
}
