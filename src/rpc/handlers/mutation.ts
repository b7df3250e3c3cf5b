import type { DescMessage, DescMethod, MessageShape } from "@bufbuild/protobuf";
import type { HandlerContext } from "@connectrpc/connect";
import { actorOf } from "../../domain/principal.ts";
import type { Mutation } from "../backend.ts";
import { principalKey } from "../call-values.ts";
import { fingerprint } from "../convert/request-fingerprint.ts";

/** Who asks for a change, and how its repetition is known: the same for every method that changes something. */
export function mutationOf<Desc extends DescMessage>(
  context: HandlerContext,
  method: DescMethod & { readonly input: Desc },
  request: MessageShape<Desc> & { readonly requestId: string },
): Mutation {
  const actor = actorOf(context.values.get(principalKey));
  const id = request.requestId;
  if (id === "") return { actor, request: undefined };
  const content = Buffer.from(fingerprint(method, request, ["requestId"])).toString("hex");
  return { actor, request: { id, fingerprint: content } };
}
