import type { DescEnum } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { MAX_MESSAGE_BYTES } from "../../../common/contract/message-limit.ts";
import type { FieldViolation, Reason } from "../../domain/errors.ts";

/** The meaning of a library's error, in the terms of the contract. */
export interface Explanation {
  readonly code: Code;
  /** A reason of the contract. Undefined if it has none: the name of the code is used. */
  readonly reason: Reason | undefined;
  readonly message: string;
  readonly metadata?: Readonly<Record<string, string>>;
  readonly violations?: readonly FieldViolation[];
}

/**
 * Texts of errors that connect and grpc-js report as internal, although the caller sent something invalid. They become
 * INVALID_ARGUMENT. All of them are tested over sockets on both listeners, since another version of a library may change
 * its texts.
 */
const MALFORMED: readonly [start: string, message: string][] = [
  ["parse binary: ", "the request is not a valid protobuf message of this method's type"],
  ["decompression failed", "a compressed message could not be decompressed"],
  ["Failed to decompress message", "a compressed message could not be decompressed"],
  ["Invalid grpc-timeout value", "the header grpc-timeout must be at most 8 digits and a unit (H, M, S, m, u or n)"],
];

/**
 * A message that is marked as compressed without a declared compression. gRPC and Connect prescribe INTERNAL, although the caller
 * is at fault (grpc/doc/compression.md).
 */
const UNDECLARED_START = "received compressed envelope";
const UNDECLARED =
  "a message is marked as compressed, but no compression was declared in the headers: declare it, such as grpc-encoding: gzip";

/** The only text that a caller gets about a defect of this program. */
export const INTERNAL_ERROR = "internal error";

const TOO_LARGE = /larger than/;

/** Says that a value is not in an enum, and lists its values. Callers never mean UNSPECIFIED. */
export function noSuchValue(desc: DescEnum, value: string): string {
  const names = desc.values.filter(({ number }) => number !== 0).map(({ name }) => name);
  return `${value} is not a value of ${desc.name}: use one of ${names.join(", ")}`;
}

/** Explains an error of a library. The caller gets the library's text only if it is about what the caller sent. */
export function explain(code: Code, text: string): Explanation {
  switch (code) {
    case Code.Internal:
    case Code.Unknown:
    case Code.DataLoss: {
      const malformed = MALFORMED.find(([start]) => text.startsWith(start));
      if (malformed !== undefined) return invalid(malformed[1]);
      const message = text.startsWith(UNDECLARED_START) ? UNDECLARED : INTERNAL_ERROR;
      return { code: Code.Internal, reason: undefined, message };
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

/** An empty path is the whole message: the texts of the libraries contain no path. */
function invalid(message: string): Explanation {
  return {
    code: Code.InvalidArgument,
    reason: "INVALID_FIELD",
    message,
    violations: [{ field: "", description: message }],
  };
}

/** A library's text without the parts that only its authors understand. */
function plain(text: string): string {
  return text.replace(/^protocol error: /, "").replace(/^cannot decode message \S+ from JSON: /, "");
}
