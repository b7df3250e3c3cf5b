import { createHash } from "node:crypto";
import type { DescMessage, DescMethod, MessageShape } from "@bufbuild/protobuf";
import { Refusal } from "../../domain/errors.ts";
import { fingerprint } from "./request-fingerprint.ts";

/** Where a list continues. */
export interface PagePosition {
  /** The key of the last row of the previous page. */
  readonly after: bigint;
  /** The revision of the first page: that of its agents, or the newest transition of the list. */
  readonly asOf: bigint;
}

/** Increase it with each change of the layout, so that older tokens are rejected and not misread. */
const VERSION = 1;
const POSITION_BYTES = 16;
const CHECK_BYTES = 16;
const TOKEN_BYTES = 1 + POSITION_BYTES + CHECK_BYTES;

/**
 * Creates the token of the next page. It contains where the list continues, and a checksum over that and the request: a
 * damaged token, or one of another request, is rejected. It is not a secret: it allows nothing that its caller could not
 * list anyway. Every replica accepts it, also after restarts.
 */
export function writePageToken<Desc extends DescMessage>(
  method: DescMethod & { readonly input: Desc },
  request: MessageShape<Desc>,
  position: PagePosition,
): string {
  const token = Buffer.alloc(TOKEN_BYTES);
  token.writeUInt8(VERSION, 0);
  token.writeBigInt64BE(position.after, 1);
  token.writeBigInt64BE(position.asOf, 9);
  check(method, request, token).copy(token, 1 + POSITION_BYTES);
  return token.toString("base64url");
}

/**
 * Reads `page_token`. Undefined for the first page.
 *
 * @throws Refusal `INVALID_PAGE_TOKEN` for a token that is damaged or belongs to a request with other content. Only
 * `page_size` may change between the pages of a list.
 */
export function readPageToken<Desc extends DescMessage>(
  method: DescMethod & { readonly input: Desc },
  request: MessageShape<Desc>,
  text: string,
): PagePosition | undefined {
  if (text === "") return undefined;
  const token = Buffer.from(text, "base64url");
  // Decoding ignores characters outside of base64url. A token that does not encode to the same text again is rejected.
  const intact = token.length === TOKEN_BYTES && token.readUInt8(0) === VERSION && token.toString("base64url") === text;
  if (!intact || !check(method, request, token).equals(token.subarray(1 + POSITION_BYTES))) {
    throw invalidPageToken();
  }
  const position = { after: token.readBigInt64BE(1), asOf: token.readBigInt64BE(9) };
  // Callers can compute the checksum. So the smallest number, which has no predecessor, has to be rejected here.
  if (position.after < 0n || position.asOf < 0n) throw invalidPageToken();
  return position;
}

function check<Desc extends DescMessage>(
  method: DescMethod & { readonly input: Desc },
  request: MessageShape<Desc>,
  token: Buffer,
): Buffer {
  return createHash("sha256")
    .update(fingerprint(method, request, ["pageSize", "pageToken"]))
    .update(token.subarray(0, 1 + POSITION_BYTES))
    .digest()
    .subarray(0, CHECK_BYTES);
}

function invalidPageToken(): Refusal {
  const description =
    "must be the next_page_token of the page before, for a request with the same content; only page_size may change";
  return new Refusal("INVALID_PAGE_TOKEN", `page_token: ${description}`, {
    violations: [{ field: "page_token", description }],
  });
}
