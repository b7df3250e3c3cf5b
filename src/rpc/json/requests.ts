import { TextDecoder } from "node:util";
import { type DescMessage, fromJsonString, type JsonReadOptions, type JsonWriteOptions } from "@bufbuild/protobuf";
import { StructSchema } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { Refusal } from "../../domain/errors.ts";
import { fromLibrary, fromRefusal } from "../errors/error-table.ts";
import { hasTooManyJsonValues, tooManyValues } from "../validation/value-limit.ts";
import { compileJsonCheck } from "./check.ts";

interface TextDecoding {
  decode(bytes?: Uint8Array): string;
}

/**
 * Connect's handlers pass these on to its JSON serialization, which accepts a decoder. Their own types do not include it.
 */
export type JsonRequestOptions = Partial<JsonReadOptions & JsonWriteOptions> & { readonly textDecoder: TextDecoding };

/**
 * Makes Connect's handlers read the JSON requests of one message type strictly. By default, Connect ignores unknown
 * fields: a filter with a misspelt field would match everything. It also reads invalid UTF-8 as U+FFFD: a name would be
 * stored as another name. The decoder is the one place for all protocols and kinds of calls, including GET and streams.
 * It runs after decompression and after the limit of message sizes. Binary calls do not use it.
 */
export function jsonRequestOptions(input: DescMessage): JsonRequestOptions {
  const utf8 = new TextDecoder("utf-8", { fatal: true });
  const check = compileJsonCheck(input);
  const decode = (bytes?: Uint8Array): string => {
    if (bytes !== undefined && hasTooManyJsonValues(bytes)) throw tooManyValues();
    const text = readText(utf8, bytes);
    const json = parse(text);
    if (typeof json !== "object" || json === null || Array.isArray(json)) {
      throw fromLibrary(Code.InvalidArgument, "the request must be a JSON object");
    }
    try {
      if (!check(json)) return text;
    } catch (thrown) {
      // If this is not a ConnectError, the library treats it as an error of its parser and sends only its text.
      throw thrown instanceof Refusal ? fromRefusal(thrown) : thrown;
    }
    rejectDuplicateKeys(text);
    return JSON.stringify(json);
  };
  return { ignoreUnknownFields: false, textDecoder: { decode } };
}

function readText(utf8: TextDecoder, bytes: Uint8Array | undefined): string {
  try {
    return utf8.decode(bytes);
  } catch {
    throw fromLibrary(Code.InvalidArgument, "the request must be UTF-8");
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (thrown) {
    const why = thrown instanceof Error ? `: ${thrown.message}` : "";
    throw fromLibrary(Code.InvalidArgument, `the request must be JSON${why}`);
  }
}

/**
 * The library rejects duplicate keys in the text that it gets, and a changed one has none any more. Its reader of a Struct accepts
 * any other object.
 */
function rejectDuplicateKeys(text: string): void {
  try {
    fromJsonString(StructSchema, text);
  } catch (thrown) {
    throw fromLibrary(Code.InvalidArgument, thrown instanceof Error ? thrown.message : String(thrown));
  }
}
