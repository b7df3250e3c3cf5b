import { createHandlerContext } from "@connectrpc/connect";
import { describe, expect, test } from "vitest";
import { ChildContext, isCallEnded, onCallEnd, requestHeaderOf } from "../../src/lazy-context.ts";
import { LazySignal } from "../../src/lazy-signal.ts";
import { Echo } from "../echo.ts";

describe("a lazy signal", () => {
  test("is aborted once, with the first reason", () => {
    const lazy = new LazySignal();
    const { signal } = lazy;
    const reasons: unknown[] = [];
    signal.addEventListener("abort", () => reasons.push(signal.reason));
    lazy.onAbort((reason) => reasons.push(reason));
    expect(signal.aborted).toBe(false);
    lazy.abort("first");
    lazy.abort("second");
    expect(reasons).toEqual(["first", "first"]);
    expect(lazy).toMatchObject({ aborted: true, reason: "first" });
    expect(lazy.signal).toBe(signal);
  });

  test("is aborted from the beginning if it is first read after the end", () => {
    const lazy = new LazySignal();
    lazy.abort("over");
    expect(lazy.signal.aborted).toBe(true);
    expect(lazy.signal.reason).toBe("over");
  });
});

function outerContext(requestSignal: AbortSignal) {
  const method = Echo.method.say;
  return createHandlerContext({
    service: method.parent,
    method,
    protocolName: "grpc",
    requestMethod: "POST",
    url: "http://here/there",
    requestHeader: { authorization: "Bearer x" },
    requestSignal,
  });
}

const childContext = () => new ChildContext(outerContext(new AbortController().signal), () => 1_000);

describe("the listener for the end of a call", () => {
  test("is called for a context with a signal, until it is removed", () => {
    const reasons: unknown[] = [];
    for (const kept of [true, false]) {
      const client = new AbortController();
      const context = outerContext(client.signal);
      const remove = onCallEnd(context, (reason) => reasons.push(reason));
      if (!kept) remove?.();
      expect(isCallEnded(context)).toBe(false);
      client.abort(kept);
      expect(isCallEnded(context)).toBe(true);
    }
    expect(reasons).toEqual([true]);
  });

  test("is called for a lazy context, until it is removed", () => {
    const reasons: unknown[] = [];
    for (const kept of [true, false]) {
      const context = childContext();
      const remove = onCallEnd(context, (reason) => reasons.push(reason));
      if (!kept) remove?.();
      expect(isCallEnded(context)).toBe(false);
      context.ending.abort(kept);
      expect(isCallEnded(context)).toBe(true);
    }
    expect(reasons).toEqual([true]);
  });

  test("is called at once if the call has ended", () => {
    const reasons: unknown[] = [];
    const context = childContext();
    context.ending.abort("lazy");
    expect(onCallEnd(context, (reason) => reasons.push(reason))).toBeUndefined();
    expect(onCallEnd(outerContext(AbortSignal.abort("eager")), (reason) => reasons.push(reason))).toBeUndefined();
    expect(reasons).toEqual(["lazy", "eager"]);
  });
});

test("a child context has a signal and a timeout of its own, and everything else of its parent", () => {
  const outer = outerContext(new AbortController().signal);
  const context = new ChildContext(outer, () => 1_000);
  const { service, method, protocolName, requestMethod, url, values, requestHeader, responseHeader } = context;
  expect({ service, method, protocolName, requestMethod, url, values }).toEqual({
    service: outer.service,
    method: outer.method,
    protocolName: outer.protocolName,
    requestMethod: outer.requestMethod,
    url: outer.url,
    values: outer.values,
  });
  expect(requestHeader).toBe(outer.requestHeader);
  expect(responseHeader).toBe(outer.responseHeader);
  expect(context.responseTrailer).toBe(outer.responseTrailer);
  expect(context.timeoutMs()).toBe(1_000);
  expect(context.signal).not.toBe(outer.signal);
  expect(requestHeaderOf(context, "authorization")).toBe("Bearer x");
  expect(requestHeaderOf(context, "x-missing")).toBe(null);
});
