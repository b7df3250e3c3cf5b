import { once } from "node:events";
import type { ClientHttp2Stream } from "node:http2";
import { create, fromBinary } from "@bufbuild/protobuf";
import { BinaryReader } from "@bufbuild/protobuf/wire";
import { AnySchema, anyUnpack, StringValueSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createServiceImplSpec, type ServiceImpl } from "@connectrpc/connect";
import { type Metadata, Server, status } from "@grpc/grpc-js";
import { describe, expect, test, vi } from "vitest";
import { createGrpcBridge, protobufCodec, transportOf } from "../src/index.ts";
import { Echo, listen, replyOf, serveEcho, textMessage } from "./echo.ts";

const text = (value: string) => create(StringValueSchema, { value });

const until = (condition: () => boolean) => vi.waitUntil(condition, { timeout: 10_000, interval: 5 });

describe("a bridge without options", () => {
  test("serves a unary call", async () => {
    await using echo = await serveEcho({ say: ({ value }) => ({ value: `${value}!` }) });
    expect(await echo.connect().call("Say", ["hello"])).toMatchObject({ texts: ["hello!"], error: undefined });
  });

  test("serves a call with a stream of requests", async () => {
    await using echo = await serveEcho({
      join: async (requests) => {
        const values: string[] = [];
        for await (const { value } of requests) values.push(value);
        return { value: values.join(" ") };
      },
    });
    expect(await echo.connect().call("Join", ["a", "b", "c"])).toMatchObject({ texts: ["a b c"], error: undefined });
    expect(await echo.connect().call("Join", [])).toMatchObject({ texts: [""], error: undefined });
  });

  test("serves a call with a stream of responses", async () => {
    await using echo = await serveEcho({
      async *split({ value }) {
        for (const word of value.split(" ")) yield text(word);
      },
    });
    expect(await echo.connect().call("Split", ["a b c"])).toMatchObject({ texts: ["a", "b", "c"], error: undefined });
  });

  test("serves a call with streams in both directions, message by message", async () => {
    await using echo = await serveEcho({
      async *chat(requests) {
        for await (const { value } of requests) yield text(value.toUpperCase());
      },
    });
    const call = echo.connect().open("Chat");
    const reply = replyOf(call);
    for (const word of ["a", "b"]) {
      const answered = new Promise((resolve) => call.once("data", resolve));
      call.write(textMessage(word));
      expect(await answered).toBe(word.toUpperCase());
    }
    call.end();
    expect(await reply).toMatchObject({ texts: ["A", "B"], error: undefined });
  });

  test("reads compressed messages", async () => {
    await using echo = await serveEcho({ say: ({ value }) => ({ value: String(value.length) }) });
    const client = echo.connect({ "grpc.default_compression_algorithm": 2 });
    expect(await client.call("Say", ["x".repeat(100_000)])).toMatchObject({ texts: ["100000"], error: undefined });
  });

  test("leaves paths of no service to grpc-js", async () => {
    await using echo = await serveEcho({ say: () => ({}) });
    const client = echo.connect();
    const failed = new Promise((resolve) => {
      client.makeUnaryRequest(
        "/echo.Other/Say",
        (bytes: Buffer) => bytes,
        (bytes) => bytes,
        Buffer.alloc(0),
        (error) => resolve(error?.code),
      );
    });
    expect(await failed).toBe(status.UNIMPLEMENTED);
  });

  test("answers UNIMPLEMENTED for a method without an implementation", async () => {
    await using echo = await serveEcho({});
    expect((await echo.connect().call("Say", ["hello"])).error?.code).toBe(status.UNIMPLEMENTED);
  });
});

describe("headers and trailers", () => {
  test("pass in both directions, binary ones as base64 for the handler", async () => {
    await using echo = await serveEcho({
      say: (_, context) => {
        context.responseHeader.set("x-header", context.requestHeader.get("x-sent") ?? "");
        context.responseTrailer.set("x-trailer-bin", context.requestHeader.get("x-bytes-bin") ?? "");
        return {};
      },
      async *chat(requests, context) {
        context.responseHeader.set("x-header", context.requestHeader.get("x-sent") ?? "");
        context.responseTrailer.set("x-trailer-bin", context.requestHeader.get("x-bytes-bin") ?? "");
        yield* requests;
      },
    });
    const metadata = { "x-sent": "hello", "x-bytes-bin": Buffer.from([0, 255]) };
    for (const method of ["Say", "Chat"] as const) {
      const { headers, trailers } = await echo.connect().call(method, ["a"], { metadata });
      expect(headers?.get("x-header")).toEqual(["hello"]);
      expect(trailers?.get("x-trailer-bin")).toEqual([Buffer.from([0, 255])]);
    }
  });

  test("of a request stay readable for a stream's handler, unless `freeHeaders` is set", async () => {
    for (const freeHeaders of [false, true]) {
      await using echo = await serveEcho(
        {
          async *chat(requests, context) {
            for await (const _ of requests) yield text(context.requestHeader.get("x-sent") ?? "freed");
          },
        },
        { freeHeaders },
      );
      const { texts } = await echo.connect().call("Chat", ["1", "2"], { metadata: { "x-sent": "hello" } });
      expect(texts).toEqual(["hello", freeHeaders ? "freed" : "hello"]);
    }
  });

  test("trailers of a handler that throws are sent with those of its error", async () => {
    await using echo = await serveEcho({
      say: (_, context) => {
        context.responseTrailer.set("x-of-handler", "1");
        throw new ConnectError("no", Code.Aborted, { "x-of-error": "2" });
      },
    });
    const { trailers } = await echo.connect().call("Say", ["a"]);
    expect([trailers?.get("x-of-handler"), trailers?.get("x-of-error")]).toEqual([["1"], ["2"]]);
  });
});

/** Code, message and details of `google.rpc.Status` in a trailer. */
function statusDetails(trailers: Metadata | undefined) {
  const [bytes] = trailers?.get("grpc-status-details-bin") ?? [];
  if (!(bytes instanceof Buffer)) return undefined;
  const reader = new BinaryReader(bytes);
  const details: unknown[] = [];
  let code = 0;
  let message = "";
  while (reader.pos < reader.len) {
    const [field] = reader.tag();
    if (field === 1) code = reader.int32();
    else if (field === 2) message = reader.string();
    else details.push(anyUnpack(fromBinary(AnySchema, reader.bytes()), StringValueSchema));
  }
  return { code, message, details };
}

describe("errors", () => {
  test("carry code, message and details, from every kind of call", async () => {
    const details = [{ desc: StringValueSchema, value: { value: "why" } }];
    const fail = (): never => {
      throw new ConnectError("not today: ä", Code.FailedPrecondition, undefined, details);
    };
    await using echo = await serveEcho({
      say: fail,
      join: async () => fail(),
      // biome-ignore lint/correctness/useYield: it fails before its first response
      async *split() {
        fail();
      },
      async *chat(requests) {
        for await (const request of requests) {
          yield request;
          fail();
        }
      },
    });
    for (const method of ["Say", "Join", "Split", "Chat"] as const) {
      const { error, trailers } = await echo.connect().call(method, ["a"]);
      expect(error).toMatchObject({ code: status.FAILED_PRECONDITION, details: "not today: ä" });
      expect(statusDetails(trailers)).toMatchObject({
        code: status.FAILED_PRECONDITION,
        message: "not today: ä",
        details: [{ value: "why" }],
      });
    }
  });

  test("pass details on that arrived from another server", async () => {
    const error = new ConnectError("no", Code.Aborted);
    error.details.push({ type: "google.protobuf.StringValue", value: textMessage("why") });
    await using echo = await serveEcho({
      say: () => {
        throw error;
      },
    });
    expect(statusDetails((await echo.connect().call("Say", ["a"])).trailers)?.details).toMatchObject([
      { value: "why" },
    ]);
  });

  test("without details have no grpc-status-details-bin; half a surrogate pair in the message is replaced", async () => {
    await using echo = await serveEcho({
      say: () => {
        throw new ConnectError("half: \ud800", Code.NotFound);
      },
    });
    const { error, trailers } = await echo.connect().call("Say", ["a"]);
    expect(error).toMatchObject({ code: status.NOT_FOUND, details: "half: \ufffd" });
    expect(statusDetails(trailers)).toBeUndefined();
  });

  test("hide any other reason that a handler throws", async () => {
    await using echo = await serveEcho({
      say: () => {
        throw new Error("password=1234");
      },
    });
    const { error } = await echo.connect().call("Say", ["a"]);
    expect(error).toMatchObject({ code: status.INTERNAL, details: "internal error" });
  });

  test.each(["Say", "Split"] as const)("reject no request, and two, in a call of %s", async (method) => {
    await using echo = await serveEcho({
      say: () => ({}),
      async *split() {
        yield text("");
      },
    });
    expect((await echo.connect().call(method, [])).error).toMatchObject({
      code: status.UNIMPLEMENTED,
      details: "this method takes exactly one request message, and got none",
    });
    expect((await echo.connect().call(method, ["a", "b"])).error).toMatchObject({
      code: status.UNIMPLEMENTED,
      details: "this method takes exactly one request message, and got more than one",
    });
  });

  test.each(["Say", "Chat"] as const)("reject a malformed message in a call of %s", async (method) => {
    await using echo = await serveEcho({
      say: () => ({}),
      async *chat(requests) {
        yield* requests;
      },
    });
    const { error } = await echo.connect().call(method, [Buffer.from([0x0a, 0x7f])]);
    expect(error?.code).toBe(status.INTERNAL);
    expect(error?.details).toContain("cannot decode google.protobuf.StringValue: ");
  });

  test("all pass through `toError`, with the codec's", async () => {
    const seen: unknown[] = [];
    await using echo = await serveEcho(
      { say: () => Promise.reject("refused") },
      {
        toError: (reason) => {
          seen.push(reason instanceof ConnectError ? reason.code : reason);
          return new ConnectError("translated", Code.DataLoss);
        },
        codec: {
          ...protobufCodec,
          decode: (schema, bytes) => {
            if (bytes.length > 100) throw new RangeError("too long");
            return protobufCodec.decode(schema, bytes);
          },
        },
      },
    );
    for (const requests of [["a"], [], ["x".repeat(100)]]) {
      expect((await echo.connect().call("Say", requests)).error).toMatchObject({ code: 15, details: "translated" });
    }
    expect(seen).toEqual([
      Code.Canceled,
      Code.DeadlineExceeded,
      "refused",
      Code.Unimplemented,
      new RangeError("too long"),
    ]);
  });
});

describe("the end of a call", () => {
  test("by its deadline aborts the handler's signal, and is answered while the handler still works", async () => {
    const reasons: unknown[] = [];
    const wait = (signal: AbortSignal) =>
      new Promise<never>(() => signal.addEventListener("abort", () => reasons.push(signal.reason)));
    await using echo = await serveEcho({
      say: (_, { signal }) => wait(signal),
      // biome-ignore lint/correctness/useYield: it waits before its first response
      async *split(_, { signal }) {
        await wait(signal);
      },
    });
    for (const method of ["Say", "Split"] as const) {
      const { error } = await echo.connect().call(method, ["a"], { deadline: Date.now() + 100 });
      expect(error?.code).toBe(status.DEADLINE_EXCEEDED);
    }
    await until(() => reasons.length === 2);
    // grpc-js measures the deadline at both ends; a client that is first cancels.
    for (const reason of reasons) {
      expect([Code.DeadlineExceeded, Code.Canceled]).toContain(ConnectError.from(reason).code);
    }
  });

  test("shows a handler its timeout", async () => {
    const left: (number | undefined)[] = [];
    await using echo = await serveEcho({
      say: (_, context) => {
        left.push(context.timeoutMs());
        return {};
      },
    });
    await echo.connect().call("Say", ["a"]);
    await echo.connect().call("Say", ["a"], { deadline: Date.now() + 60_000 });
    expect(left[0]).toBeUndefined();
    expect(left[1]).toBeGreaterThan(1_000);
    expect(left[1]).toBeLessThanOrEqual(60_000);
  });

  test("by a cancellation of a grpc-js client aborts the signal", async () => {
    const events: string[] = [];
    await using echo = await serveEcho({
      async *chat(requests, { signal }) {
        signal.addEventListener("abort", () => events.push(`aborted: ${ConnectError.from(signal.reason).code}`));
        try {
          for await (const request of requests) yield request;
          // These clients half-close a stream before they cancel it.
          await new Promise((resolve) => signal.addEventListener("abort", resolve));
        } finally {
          events.push("cleaned up");
        }
      },
    });
    const call = echo.connect().open("Chat");
    const reply = replyOf(call);
    call.write(textMessage("a"));
    await new Promise((resolve) => call.once("data", resolve));
    call.cancel();
    expect((await reply).error?.code).toBe(status.CANCELLED);
    await until(() => events.includes("cleaned up"));
    expect(events).toEqual([`aborted: ${Code.Canceled}`, "cleaned up"]);
  });

  test.each([
    ["a reset", (stream: ClientHttp2Stream) => stream.destroy(new Error("reset"))],
    ["a lost connection", (stream: ClientHttp2Stream) => stream.session?.destroy()],
  ])("by %s is no half-close: reading throws", async (_, end) => {
    for (const method of ["Join", "Chat"]) {
      const events: string[] = [];
      const read = async (requests: AsyncIterable<unknown>, signal: AbortSignal): Promise<void> => {
        signal.addEventListener("abort", () => events.push(`aborted: ${ConnectError.from(signal.reason).code}`));
        try {
          for await (const _request of requests) events.push("message");
          events.push("half-closed");
        } catch (thrown) {
          events.push(`thrown: ${ConnectError.from(thrown).code}`);
        }
      };
      await using echo = await serveEcho({
        join: async (requests, { signal }) => {
          await read(requests, signal);
          return {};
        },
        async *chat(requests, { signal }) {
          await read(requests, signal);
          yield text("");
        },
      });
      const stream = echo.openStream(method, "a");
      await until(() => events.includes("message"));
      end(stream);
      await until(() => events.length === 3);
      expect(events).toEqual(["message", `aborted: ${Code.Canceled}`, `thrown: ${Code.Canceled}`]);
    }
  });

  test("comes when the request does not arrive in time", async () => {
    await using echo = await serveEcho({ say: () => ({}) }, { requestTimeoutMs: 100 });
    const call = echo.connect().open("Say");
    expect((await replyOf(call)).error?.code).toBe(status.DEADLINE_EXCEEDED);
  });
});

describe("a stream that its client does not read", () => {
  test("stops asking its handler, and goes on when the client reads", async () => {
    const kilobytes = 10_000;
    let asked = 0;
    await using echo = await serveEcho({
      async *split() {
        for (; asked < kilobytes; asked += 1) yield text("x".repeat(1_000));
      },
    });
    const stream = echo.openStream("Split", "a");
    stream.end();
    let before = -1;
    while (before !== asked || asked === 0) {
      before = asked;
      await new Promise((resolve) => setTimeout(resolve, 300));
    }
    expect(asked).toBeLessThan(kilobytes / 10);
    let bytes = 0;
    for await (const piece of stream) bytes += piece.length;
    expect(bytes).toBeGreaterThan(kilobytes * 1_000);
  });

  test("ends with RESOURCE_EXHAUSTED after the timeout, and its handler cleans up", async () => {
    let cleanedUp = false;
    await using echo = await serveEcho(
      {
        async *split() {
          try {
            for (;;) yield text("x".repeat(1_000));
          } finally {
            cleanedUp = true;
          }
        },
      },
      { writeTimeoutMs: 200 },
    );
    const stream = echo.openStream("Split", "a");
    stream.end();
    await until(() => cleanedUp);
    const trailers = once(stream, "trailers");
    stream.resume();
    const [received] = await trailers;
    expect(received).toMatchObject({
      "grpc-status": "8",
      "grpc-message": "the%20client%20read%20nothing%20from%20the%20stream%20for%20200%20ms",
    });
  });

  test("waits for capacity of the transport", async () => {
    let capacity = false;
    let resume: () => void = () => undefined;
    const counted = { added: 0, sent: 0, closed: false };
    const implementation: Partial<ServiceImpl<typeof Echo>> = {
      async *split() {
        yield text("a");
      },
    };
    const bridge = createGrpcBridge([createServiceImplSpec(Echo, implementation)]);
    const server = new Server({
      interceptors: [
        (method, call) =>
          bridge.serve(method, call, {
            ...transportOf(call),
            sending: () => ({
              get hasCapacity() {
                return capacity;
              },
              add: (bytes) => {
                counted.added += bytes;
              },
              sent: (bytes) => {
                counted.sent += bytes;
              },
              onCapacity: (go) => {
                resume = go;
              },
              close: () => {
                counted.closed = true;
              },
            }),
          }),
      ],
    });
    await using echo = await listen(bridge, server);
    const reply = echo.connect().call("Split", ["a"]);
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(counted.added).toBe(0);
    capacity = true;
    resume();
    expect(await reply).toMatchObject({ texts: ["a"], error: undefined });
    expect(counted).toEqual({ added: 3, sent: 3, closed: true });
  });
});

describe("what a bridge rejects", () => {
  test.each([
    { requestTimeoutMs: 0 },
    { writeTimeoutMs: 2_147_483_648 },
    { writeTimeoutMs: Number.NaN },
  ])("is a timeout that no timer waits: %o", (options) => {
    expect(() => createGrpcBridge([], options)).toThrow(RangeError);
  });

  test("is a call that does not come from grpc-js itself", () => {
    expect(() => Reflect.apply(transportOf, undefined, [{}])).toThrow("first one");
  });
});
