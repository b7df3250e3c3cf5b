import { createHash } from "node:crypto";
import { clone, type DescMessage, type DescMethod, type MessageShape, toBinary } from "@bufbuild/protobuf";
import { reflect } from "@bufbuild/protobuf/reflect";

/** Fields that a request may change and still be the same one; by their local names. */
export type Overlooked = "requestId" | "pageSize" | "pageToken";

/**
 * What a request asks for, whole and in one form: the same for the same content on every replica, in every encoding.
 * Fields that this server does not know do not count, since it does not act on them.
 *
 * @param overlooked fields that do not count either
 */
export function fingerprint<Desc extends DescMessage>(
  method: DescMethod & { readonly input: Desc },
  request: MessageShape<Desc>,
  overlooked: readonly Overlooked[],
): Uint8Array {
  const content = clone(method.input, request);
  const fields = reflect(method.input, content);
  for (const name of overlooked) {
    const field = method.input.field[name];
    if (field !== undefined) fields.clear(field);
  }
  return createHash("sha256")
    .update(`${method.parent.typeName}/${method.name}\0`)
    .update(toBinary(method.input, content, { writeUnknownFields: false }))
    .digest();
}
