import type { DescEnum } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { MAX_MESSAGE_BYTES } from "../../contract/message-limit.ts";
import type { FieldViolation, Reason } from "../../domain/errors.ts";

/** What a library's refusal means in the words of the contract. */
export interface Explanation {
  readonly code: Code;
  /** A reason of the contract; undefined where it has none and the code's name has to do. */
  readonly reason: Reason | undefined;
  readonly message: string;
  readonly metadata?: Readonly<Record<string, string>>;
  readonly violations?: readonly FieldViolation[];
}

/**
 * Texts with which connect and grpc-js refuse what a caller sent as their own internal error. It is the caller's, so it
 * is INVALID_ARGUMENT. All of them are tested over sockets on both listeners, since another version may word them anew.
 */
const MALFORMED: readonly [start: string, message: string][] = [
  ["parse binary: ", "the request is no valid protobuf message of this method's type"],
  ["received compressed envelope", "a message is marked as compressed, but no compression was declared in the headers"],
  ["decompression failed", "a compressed message could not be decompressed"],
  ["Failed to decompress message", "a compressed message could not be decompressed"],
  ["Invalid grpc-timeout value", "the header grpc-timeout must be at most 8 digits and a unit (H, M, S, m, u or n)"],
];

const TOO_LARGE = /larger than/;

/** Says that a value is none of an enum, and which there are. Unspecified is never what a caller wants. */
export function noSuchValue(desc: DescEnum, value: string): string {
  const names = desc.values.filter(({ number }) => number !== 0).map(({ name }) => name);
  return `${value} is no ${desc.name}: use one of ${names.join(", ")}`;
}

/**
 * Says what a refusal by a library means. Its text reaches the caller only where it is about what the caller sent.
 */
export function explain(code: Code, text: string): Explanation {
  switch (code) {
    case Code.Internal:
    case Code.Unknown:
    case Code.DataLoss: {
      const malformed = MALFORMED.find(([start]) => text.startsWith(start));
      if (malformed !== undefined) return invalid(malformed[1]);
      return { code: Code.Internal, reason: undefined, message: "internal error" };
    }
    case Code.InvalidArgument:
      return invalid(plain(text));
    case Code.ResourceExhausted:
      if (!TOO_LARGE.test(text)) return { code, reason: "LIMIT_EXCEEDED", message: text };
      return {
        code,
        reason: "LIMIT_EXCEEDED",
        message: `a message must not be larger than ${MAX_MESSAGE_BYTES} bytes: send fewer items in each`,
        metadata: { limit: "maxMessageBytes", maxMessageBytes: String(MAX_MESSAGE_BYTES) },
      };
    case Code.DeadlineExceeded:
      return { code, reason: undefined, message: "the call took longer than its deadline allows" };
    case Code.Canceled:
      return { code, reason: undefined, message: "the call was cancelled" };
    case Code.PermissionDenied:
      return { code, reason: "PERMISSION_DENIED", message: text };
    case Code.Unauthenticated:
      return { code, reason: "UNAUTHENTICATED", message: text };
    default:
      return { code, reason: undefined, message: plain(text) };
  }
}

/** An empty path is the message as a whole: the libraries' texts say no more. */
function invalid(message: string): Explanation {
  return {
    code: Code.InvalidArgument,
    reason: "INVALID_FIELD",
    message,
    violations: [{ field: "", description: message }],
  };
}

/** A library's text without what only its authors understand. */
function plain(text: string): string {
  return text.replace(/^protocol error: /, "").replace(/^cannot decode message \S+ from JSON: /, "");
}
