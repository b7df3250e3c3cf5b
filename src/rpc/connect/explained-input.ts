import { ConnectError, type MethodImplSpec, type ServiceImplSpec } from "@connectrpc/connect";
import { fromLibrary, hasErrorInfo } from "../errors/error-table.ts";

/**
 * The same service, with reasons in the errors of request streams. If Connect cannot read a stream, it throws an internal
 * error where the handler reads. Behind the handler, this could not be told apart from an internal error of ours.
 */
export function withExplainedInput({ service, methods }: ServiceImplSpec): ServiceImplSpec {
  const explained: Record<string, MethodImplSpec> = {};
  for (const [name, spec] of Object.entries(methods)) explained[name] = explainedMethod(spec);
  return { service, methods: explained };
}

function explainedMethod(spec: MethodImplSpec): MethodImplSpec {
  switch (spec.kind) {
    case "client_streaming":
      return {
        kind: spec.kind,
        method: spec.method,
        impl: (requests, context) => spec.impl(explainedInput(requests), context),
      };
    case "bidi_streaming":
      return {
        kind: spec.kind,
        method: spec.method,
        impl: (requests, context) => spec.impl(explainedInput(requests), context),
      };
    default:
      return spec;
  }
}

function explainedInput<T>(input: AsyncIterable<T>): AsyncIterable<T> {
  return {
    [Symbol.asyncIterator]: () => {
      const source = input[Symbol.asyncIterator]();
      return {
        next: () => source.next().catch(rethrowExplained),
        return: () => source.return?.() ?? Promise.resolve({ done: true, value: undefined }),
      };
    },
  };
}

function rethrowExplained(thrown: unknown): never {
  if (!(thrown instanceof ConnectError) || hasErrorInfo(thrown)) throw thrown;
  throw fromLibrary(thrown.code, thrown.rawMessage, thrown.metadata);
}
