import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** How the provider responds to requests for a model. */
export type Behaviour =
  | { readonly kind: "text"; readonly text: string }
  /** Responds when the gate opens. */
  | { readonly kind: "gated"; readonly gate: Promise<unknown> }
  | {
      readonly kind: "error";
      readonly status: number;
      readonly headers?: Readonly<Record<string, string>>;
      readonly body: unknown;
    }
  /** Calls a tool if a message of the user has this word, and responds with a text to its result. */
  | { readonly kind: "tool"; readonly word: string; readonly name: string; readonly arguments: object };

/** A model provider in the manner of OpenAI that follows a script. */
export interface FakeProvider extends AsyncDisposable {
  readonly url: string;
  /** What each model does with its next requests; the last one repeats. A model without an entry responds "ok". */
  readonly script: Map<string, readonly Behaviour[]>;
  /** How many requests each model got. */
  readonly requests: Map<string, number>;
}

export const rateLimited = (retryAfterSeconds: number): Behaviour => ({
  kind: "error",
  status: 429,
  headers: { "retry-after": String(retryAfterSeconds) },
  body: { error: { message: "Rate limit reached for requests", type: "requests", code: "rate_limit_exceeded" } },
});

export const insufficientQuota: Behaviour = {
  kind: "error",
  status: 429,
  body: {
    error: {
      message: "You exceeded your current quota, please check your plan and billing details.",
      type: "insufficient_quota",
      code: "insufficient_quota",
    },
  },
};

export const paymentRequired: Behaviour = {
  kind: "error",
  status: 402,
  body: { error: { message: "Insufficient credits. Add more to continue.", type: "payment_required", code: 402 } },
};

/** Starts the provider on a free port of loopback. */
export async function startFakeProvider(): Promise<FakeProvider> {
  const script = new Map<string, readonly Behaviour[]>();
  const requests = new Map<string, number>();
  const server = createServer((request, response) => {
    respond(request, response, script, requests).catch(() => response.destroy());
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}/v1`,
    script,
    requests,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

interface ChatRequest {
  readonly model: string;
  readonly stream?: boolean;
  readonly messages: readonly { readonly role: string; readonly content?: unknown }[];
}

async function respond(
  request: IncomingMessage,
  response: ServerResponse,
  script: Map<string, readonly Behaviour[]>,
  requests: Map<string, number>,
): Promise<void> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk);
  if (request.method !== "POST") {
    response.writeHead(404).end();
    return;
  }
  const chat: ChatRequest = JSON.parse(Buffer.concat(chunks).toString());
  requests.set(chat.model, (requests.get(chat.model) ?? 0) + 1);
  const [behaviour = { kind: "text", text: "ok" }, ...later] = script.get(chat.model) ?? [];
  if (later.length > 0) script.set(chat.model, later);
  switch (behaviour.kind) {
    case "error":
      response.writeHead(behaviour.status, { "content-type": "application/json", ...behaviour.headers });
      response.end(JSON.stringify(behaviour.body));
      return;
    case "gated":
      begin(response, chat);
      await behaviour.gate;
      finish(response, chat, { content: "done" });
      return;
    case "tool": {
      begin(response, chat);
      const texts = chat.messages.filter(({ role }) => role === "user").map(({ content }) => JSON.stringify(content));
      // The gateway adds messages of its own after that of the user.
      const isCall =
        texts.some((text) => text.includes(behaviour.word)) && !chat.messages.some(({ role }) => role === "tool");
      const { name } = behaviour;
      const call = {
        index: 0,
        id: "call_1",
        type: "function",
        function: { name, arguments: JSON.stringify(behaviour.arguments) },
      };
      finish(response, chat, isCall ? { tool_calls: [call] } : { content: "done" });
      return;
    }
    case "text":
      begin(response, chat);
      finish(response, chat, { content: behaviour.text });
  }
}

function begin(response: ServerResponse, { stream, model }: ChatRequest): void {
  if (stream !== true) return;
  response.writeHead(200, { "content-type": "text/event-stream" });
  send(response, model, { role: "assistant", content: "" }, null);
}

function finish(response: ServerResponse, { stream, model }: ChatRequest, message: Record<string, unknown>): void {
  const reason = "tool_calls" in message ? "tool_calls" : "stop";
  const usage = { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 };
  if (stream === true) {
    send(response, model, message, null);
    send(response, model, {}, reason);
    response.end(
      `data: ${JSON.stringify({ id: "x", object: "chat.completion.chunk", created: 1, model, choices: [], usage })}\n\ndata: [DONE]\n\n`,
    );
    return;
  }
  const choices = [{ index: 0, message: { role: "assistant", ...message }, finish_reason: reason }];
  response.writeHead(200, { "content-type": "application/json" });
  response.end(JSON.stringify({ id: "x", object: "chat.completion", created: 1, model, choices, usage }));
}

function send(response: ServerResponse, model: string, delta: object, reason: string | null): void {
  const choices = [{ index: 0, delta, finish_reason: reason }];
  response.write(
    `data: ${JSON.stringify({ id: "x", object: "chat.completion.chunk", created: 1, model, choices })}\n\n`,
  );
}
