import { createHandlerContext } from "@connectrpc/connect";
import { describe, expect, test } from "vitest";
import { AgentService } from "../../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { BoundedContext, onCallEnd, requestHeaderOf } from "../../src/late-context.ts";
import { LateSignal } from "../../src/late-signal.ts";

describe("a signal that is made late", () => {
  test("is aborted when its end comes, once, with the first reason", () => {
    const end = new LateSignal();
    const { signal } = end;
    const heard: unknown[] = [];
    signal.addEventListener("abort", () => heard.push(signal.reason));
    end.onAbort((reason) => heard.push(reason));
    expect(signal.aborted).toBe(false);
    end.abort("first");
    end.abort("second");
    expect(heard).toEqual(["first", "first"]);
    expect(end).toMatchObject({ aborted: true, reason: "first" });
    expect(end.signal).toBe(signal);
  });

  test("is aborted from the beginning where its end came before it was asked for", () => {
    const end = new LateSignal();
    end.abort("over");
    expect(end.signal.aborted).toBe(true);
    expect(end.signal.reason).toBe("over");
  });
});

function outerContext(requestSignal: AbortSignal) {
  const method = AgentService.method.getAgent;
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

describe("the end of a call", () => {
  test("is heard of a context with a signal, until it is not wanted any more", () => {
    const heard: unknown[] = [];
    for (const wanted of [true, false]) {
      const caller = new AbortController();
      const unhear = onCallEnd(outerContext(caller.signal), (reason) => heard.push(reason));
      if (!wanted) unhear?.();
      caller.abort(wanted);
    }
    expect(heard).toEqual([true]);
  });

  test("is heard of a context without one, and at once where it came before", () => {
    const heard: unknown[] = [];
    const context = new BoundedContext(outerContext(new AbortController().signal), () => 1_000);
    expect(onCallEnd(context, (reason) => heard.push(["later", reason]))).toBeDefined();
    context.end.abort("gone");
    expect(onCallEnd(context, (reason) => heard.push(["at once", reason]))).toBeUndefined();
    expect(onCallEnd(outerContext(AbortSignal.abort("before")), (reason) => heard.push(reason))).toBeUndefined();
    expect(heard).toEqual([["later", "gone"], ["at once", "gone"], "before"]);
  });
});

test("a handler's context tells what the call's own tells, but for its end and its time", () => {
  const outer = outerContext(new AbortController().signal);
  const context = new BoundedContext(outer, () => 1_000);
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
