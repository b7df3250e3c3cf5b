import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import type { StreamResponse, Transport } from "@connectrpc/connect";
import { CallError, callErrorOf } from "./call-error.ts";

/**
 * The same transport, whose calls reject with a CallError. Unary calls have a deadline, so that a call to a service that does not
 * respond ends.
 *
 * @param callTimeoutMs the deadline of unary calls that have none, in milliseconds. 0: none
 */
export function typed(transport: Transport, callTimeoutMs: number): Transport {
  return {
    async unary(method, signal, timeoutMs = callTimeoutMs || undefined, header, input, contextValues) {
      try {
        return await transport.unary(method, signal, timeoutMs, header, input, contextValues);
      } catch (thrown) {
        throw withTimeout(callErrorOf(thrown), timeoutMs);
      }
    },
    async stream(method, signal, timeoutMs, header, input, contextValues) {
      try {
        const response = await transport.stream(method, signal, timeoutMs, header, input, contextValues);
        return { ...response, message: typedMessages(response) };
      } catch (thrown) {
        throw callErrorOf(thrown);
      }
    },
  };
}

/** States the deadline in the error of Connect, which does not. An error of the service has a reason. */
function withTimeout(error: CallError, timeoutMs: number | undefined): CallError {
  if (error.code !== "DEADLINE_EXCEEDED" || error.reason !== undefined || timeoutMs === undefined) return error;
  return new CallError(`the service did not respond within ${timeoutMs} ms`, error);
}

async function* typedMessages<I extends DescMessage, O extends DescMessage>({
  message,
}: StreamResponse<I, O>): AsyncGenerator<MessageShape<O>, void> {
  try {
    yield* message;
  } catch (thrown) {
    throw callErrorOf(thrown);
  }
}
