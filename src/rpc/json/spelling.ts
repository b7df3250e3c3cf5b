import type { DescMessage } from "@bufbuild/protobuf";
import { ConnectError } from "@connectrpc/connect";
import { BadRequestSchema, ErrorInfoSchema } from "../../../gen/google/rpc/error_details_pb.ts";

/** A path at the start of a sentence: `filter.user_ids[2]: must be …; page_size: must be …`. */
const PATH = /(^|; )([a-z][\w.[\]]*)(?=: )/g;

/**
 * Writes the paths of fields as JSON has them. The rules of the contract and of the domain name the fields of the proto files:
 * `page_size` instead of `pageSize`.
 */
export class JsonSpelling {
  readonly #names = new Map<string, string>();

  /** @param input the type of the requests whose fields are known. Other names stay as they are */
  constructor(input: DescMessage) {
    this.#collect(input, new Set());
  }

  path(path: string): string {
    return path.replace(/[a-z]\w*/gi, (name) => this.#names.get(name) ?? name);
  }

  sentences(text: string): string {
    return text.replace(PATH, (_, before: string, path: string) => `${before}${this.path(path)}`);
  }

  /** The same error with the paths of JSON in its message and its details; the error itself if it names no field. */
  error(error: ConnectError): ConnectError {
    const message = this.sentences(error.rawMessage);
    const [request] = error.findDetails(BadRequestSchema);
    if (message === error.rawMessage && request === undefined) return error;
    const details = error.details.flatMap((detail) => {
      // Errors of this program have no details of other servers.
      if (!("desc" in detail)) return [];
      if (detail.desc.typeName === BadRequestSchema.typeName && request !== undefined) {
        const fieldViolations = request.fieldViolations.map((violation) => ({
          ...violation,
          field: this.path(violation.field),
        }));
        return { desc: BadRequestSchema, value: { fieldViolations } };
      }
      const [info] = error.findDetails(ErrorInfoSchema);
      const field = info?.metadata.field;
      if (detail.desc.typeName !== ErrorInfoSchema.typeName || info === undefined || field === undefined) return detail;
      return { desc: ErrorInfoSchema, value: { ...info, metadata: { ...info.metadata, field: this.path(field) } } };
    });
    return new ConnectError(message, error.code, error.metadata, details, error.cause);
  }

  #collect(desc: DescMessage, seen: Set<DescMessage>): void {
    if (seen.has(desc)) return;
    seen.add(desc);
    for (const field of desc.fields) {
      this.#names.set(field.name, field.jsonName);
      if (field.message !== undefined) this.#collect(field.message, seen);
    }
  }
}
