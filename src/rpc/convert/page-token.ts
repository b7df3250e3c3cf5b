import { createHash } from "node:crypto";
import type { DescMessage, DescMethod, MessageShape } from "@bufbuild/protobuf";
import { Refusal } from "../../domain/errors.ts";
import { fingerprint } from "./request-fingerprint.ts";

/** Where a list goes on. */
export interface PagePosition {
  /** The key of the last row of the page before. */
  readonly after: bigint;
  /** What the first page was as of: the revision of its agents, or the newest transition that the list shows. */
  readonly asOf: bigint;
}

/** Grows when the layout changes, so that a token from before an update is refused and not misread. */
const VERSION = 1;
const POSITION_BYTES = 16;
const CHECK_BYTES = 16;
const TOKEN_BYTES = 1 + POSITION_BYTES + CHECK_BYTES;

/**
 * Makes the token of the next page. It says where the list goes on and carries a check over that and the request, so
 * that a token of another request, or a damaged one, is refused. It is no secret and needs none: it opens nothing
 * that its caller could not list anyway. Every replica takes it, across restarts.
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
 * Reads `page_token`; undefined for the first page.
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
  // Decoding overlooks what is not base64url; a token that does not read back as it was sent is not ours.
  const intact = token.length === TOKEN_BYTES && token.readUInt8(0) === VERSION && token.toString("base64url") === text;
  if (!intact || !check(method, request, token).equals(token.subarray(1 + POSITION_BYTES))) {
    throw invalidPageToken();
  }
  const position = { after: token.readBigInt64BE(1), asOf: token.readBigInt64BE(9) };
  // Anybody can compute the check. Where a list goes on by what comes before, the least of all numbers has none.
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
