import type { DescMessage, MessageInitShape } from "@bufbuild/protobuf";
import { ConnectError, type HandlerContext, type MethodImplSpec, type ServiceImplSpec } from "@connectrpc/connect";
import { JsonSpelling } from "../json/spelling.ts";

/** The same service. Callers of JSON get the paths of fields in errors as they write them: `pageSize`, and not `page_size`. */
export function withJsonErrors({ service, methods }: ServiceImplSpec): ServiceImplSpec {
  const spelled: Record<string, MethodImplSpec> = {};
  for (const [name, spec] of Object.entries(methods)) spelled[name] = spelledMethod(spec);
  return { service, methods: spelled };
}

function spelledMethod(spec: MethodImplSpec): MethodImplSpec {
  const spelling = new JsonSpelling(spec.method.input);
  const fail = (thrown: unknown): never => {
    throw thrown instanceof ConnectError ? spelling.error(thrown) : thrown;
  };
  switch (spec.kind) {
    case "unary":
      return {
        kind: spec.kind,
        method: spec.method,
        impl: (request, context) => {
          const output = spec.impl(request, context);
          if (!isJson(context)) return output;
          return Promise.resolve(output).then((response) => {
            spellBeatErrors(spelling, response);
            return response;
          }, fail);
        },
      };
    case "client_streaming":
      return spec;
    case "server_streaming":
      return {
        kind: spec.kind,
        method: spec.method,
        impl: (request, context) => spelled(spec.impl(request, context), context, spelling, fail),
      };
    case "bidi_streaming":
      return {
        kind: spec.kind,
        method: spec.method,
        impl: (requests, context) => spelled(spec.impl(requests, context), context, spelling, fail),
      };
  }
}

function spelled<Desc extends DescMessage>(
  output: AsyncIterable<MessageInitShape<Desc>>,
  context: HandlerContext,
  spelling: JsonSpelling,
  fail: (thrown: unknown) => never,
): AsyncIterable<MessageInitShape<Desc>> {
  if (!isJson(context)) return output;
  return {
    [Symbol.asyncIterator]: () => {
      const source = output[Symbol.asyncIterator]();
      return {
        next: async () => {
          const result = await source.next().catch(fail);
          if (result.done !== true) spellBeatErrors(spelling, result.value);
          return result;
        },
        return: () => source.return?.() ?? Promise.resolve({ done: true, value: undefined }),
      };
    },
  };
}

/** The errors of single beats are in responses. Each response belongs to one call, so it may be changed. */
function spellBeatErrors(spelling: JsonSpelling, response: object): void {
  const results: unknown = Reflect.get(response, "results");
  if (!Array.isArray(results)) return;
  for (const result of results) {
    const error: unknown = typeof result === "object" && result !== null ? Reflect.get(result, "error") : undefined;
    if (typeof error !== "object" || error === null || !("message" in error)) continue;
    if (typeof error.message === "string") error.message = spelling.sentences(error.message);
  }
}

function isJson({ requestMethod, requestHeader, url }: HandlerContext): boolean {
  if (requestMethod === "GET") return new URL(url).searchParams.get("encoding") === "json";
  return /^application\/(?:json|[\w-]+\+json)\s*(?:;|$)/i.test(requestHeader.get("content-type") ?? "");
}
