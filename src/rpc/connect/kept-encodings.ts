import type { DescMessage, MessageInitShape } from "@bufbuild/protobuf";
import type { MethodImplSpec, ServiceImplSpec } from "@connectrpc/connect";
import { asEncoded } from "../codec/encoded.ts";

/**
 * The same service. Its streams of responses use kept encodings if the caller asks for protobuf's binary form. Connect's
 * library encodes by itself, and a stand-in costs it almost nothing.
 *
 * @param isBinary by the content type of a request
 */
export function withKeptEncodings(
  { service, methods }: ServiceImplSpec,
  isBinary: (contentType: string | null) => boolean,
): ServiceImplSpec {
  const kept: Record<string, MethodImplSpec> = {};
  for (const [name, spec] of Object.entries(methods)) {
    kept[name] =
      spec.kind !== "server_streaming"
        ? spec
        : {
            kind: spec.kind,
            method: spec.method,
            impl: (request, context) => {
              const output = spec.impl(request, context);
              const binary = isBinary(context.requestHeader.get("content-type"));
              return binary ? keptEncodings(spec.method.output, output) : output;
            },
          };
  }
  return { service, methods: kept };
}

function keptEncodings<Desc extends DescMessage>(
  desc: Desc,
  output: AsyncIterable<MessageInitShape<Desc>>,
): AsyncIterable<MessageInitShape<Desc>> {
  return {
    [Symbol.asyncIterator]: () => {
      const source = output[Symbol.asyncIterator]();
      return {
        next: async () => {
          const result = await source.next();
          return result.done === true ? result : { done: false, value: asEncoded(desc, result.value) };
        },
        return: () => source.return?.() ?? Promise.resolve({ done: true, value: undefined }),
      };
    },
  };
}
