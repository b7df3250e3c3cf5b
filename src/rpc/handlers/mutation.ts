import type { DescMessage, DescMethod, MessageShape } from "@bufbuild/protobuf";
import type { HandlerContext } from "@connectrpc/connect";
import { isCallEnded } from "@harborforge/connect-grpc-js";
import { actorOf, requesterOf } from "../../domain/principal.ts";
import { principalKey } from "../callers/call-values.ts";
import { fingerprint } from "../convert/request-fingerprint.ts";
import type { Call, Mutation } from "./backend.ts";

/**
 * The caller of a change, and the key that makes a repeated request have one effect. The same for every method that
 * changes something.
 */
export function mutationOf<Desc extends DescMessage>(
  context: HandlerContext,
  method: DescMethod & { readonly input: Desc },
  request: MessageShape<Desc> & { readonly requestId: string },
): Mutation {
  const caller = context.values.get(principalKey);
  const actor = actorOf(caller);
  const call = callOf(context);
  const id = request.requestId;
  if (id === "") return { actor, request: undefined, call };
  const content = Buffer.from(fingerprint(method, request, ["requestId"])).toString("hex");
  return { actor, request: { principal: requesterOf(caller), id, fingerprint: content }, call };
}

/** The end of the call. A change is not made after its call has ended. */
export function callOf(context: HandlerContext): Call {
  return new ContextCall(context);
}

class ContextCall implements Call {
  readonly deadline: number;
  readonly #context: HandlerContext;

  constructor(context: HandlerContext) {
    this.#context = context;
    this.deadline = performance.now() + (context.timeoutMs() ?? Number.POSITIVE_INFINITY);
  }

  get over(): boolean {
    return isCallEnded(this.#context);
  }
}
