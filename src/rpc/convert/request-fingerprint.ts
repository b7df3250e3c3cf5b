import { createHash } from "node:crypto";
import { clone, type DescMessage, type DescMethod, type MessageShape, toBinary } from "@bufbuild/protobuf";
import { reflect } from "@bufbuild/protobuf/reflect";

/** Fields that may differ between repetitions of a request; by their local names. */
export type Ignored = "requestId" | "pageSize" | "pageToken";

/**
 * A canonical form of a request: the same for the same content on every replica and in every encoding. Unknown fields are
 * ignored, since this server does not act on them.
 *
 * @param ignored fields that are ignored as well
 */
export function fingerprint<Desc extends DescMessage>(
  method: DescMethod & { readonly input: Desc },
  request: MessageShape<Desc>,
  ignored: readonly Ignored[],
): Uint8Array {
  const content = clone(method.input, request);
  const fields = reflect(method.input, content);
  for (const name of ignored) {
    const field = method.input.field[name];
    if (field !== undefined) fields.clear(field);
  }
  return createHash("sha256")
    .update(`${method.parent.typeName}/${method.name}\0`)
    .update(toBinary(method.input, content, { writeUnknownFields: false }))
    .digest();
}
