import type { Transport } from "@connectrpc/connect";

/** A credential, or a function that returns it. The function is called before each call, so that tokens may change. */
export type Token = string | (() => string | Promise<string>);

/** The same transport, with the token in every call. */
export function authorised(transport: Transport, token: Token): Transport {
  return {
    unary: async (method, signal, timeoutMs, header, input, contextValues) =>
      transport.unary(method, signal, timeoutMs, await withToken(header, token, signal), input, contextValues),
    stream: async (method, signal, timeoutMs, header, input, contextValues) =>
      transport.stream(method, signal, timeoutMs, await withToken(header, token, signal), input, contextValues),
  };
}

async function withToken(
  header: HeadersInit | undefined,
  token: Token,
  signal: AbortSignal | undefined,
): Promise<Headers> {
  const headers = new Headers(header);
  const value = typeof token === "string" ? token : await unlessAborted(Promise.resolve(token()), signal);
  if (!headers.has("authorization")) headers.set("authorization", `Bearer ${value}`);
  return headers;
}

/** A token function that never returns must not delay a call that was aborted, or the end of the client. */
async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return await promise;
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const abort = (): void => reject(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  if (signal.aborted) abort();
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}
