import type { Transport } from "@connectrpc/connect";

/** What shows who is calling, or how to get it: a function is asked before each call, so that tokens may change. */
export type Token = string | (() => string | Promise<string>);

/** The same transport, with the token in every call. */
export function authorised(transport: Transport, token: Token): Transport {
  return {
    unary: async (method, signal, timeoutMs, header, input, contextValues) =>
      transport.unary(method, signal, timeoutMs, await withToken(header, token), input, contextValues),
    stream: async (method, signal, timeoutMs, header, input, contextValues) =>
      transport.stream(method, signal, timeoutMs, await withToken(header, token), input, contextValues),
  };
}

async function withToken(header: HeadersInit | undefined, token: Token): Promise<Headers> {
  const headers = new Headers(header);
  const value = typeof token === "string" ? token : await token();
  if (!headers.has("authorization")) headers.set("authorization", `Bearer ${value}`);
  return headers;
}
