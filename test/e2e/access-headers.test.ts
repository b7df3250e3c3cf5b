import { connect } from "node:net";
import { beforeAll, describe, expect, test } from "vitest";
import { CREDENTIALS, openMint } from "../support/access.ts";
import * as frames from "../support/http2-frames.ts";
import { frame, grpcHeaders, headerBlock, rawHttp2 } from "../support/http2-frames.ts";
import { eventually } from "../support/rpc-listeners.ts";
import { envelope } from "../support/rpc-raw.ts";
import { useService } from "../support/service.ts";

const FLEET = "/harborforge.agents.v1.AgentService/GetFleet";

const service = useService({ access: CREDENTIALS });
let good = "";
let other = "";

beforeAll(async () => {
  await using mint = openMint(service().databaseUrl);
  good = `Bearer ${(await mint.issue({ role: "viewer" })).secret}`;
  other = `Bearer ${(await mint.issue({ role: "admin" })).secret}`;
});

/** The text as raw bytes: also characters that a header must not contain. */
function http1(address: string, lines: readonly string[]): Promise<string> {
  const [host, port] = address.split(":");
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    const socket = connect(Number(port), host);
    socket.on("data", (chunk: Buffer) => chunks.push(chunk));
    socket.on("error", reject);
    socket.on("close", () => resolve(Buffer.concat(chunks).toString("latin1")));
    socket.write(Buffer.from(`${lines.join("\r\n")}\r\n\r\n{}`, "latin1"));
  });
}

async function overHttp1(authorizations: readonly string[]): Promise<string> {
  const answer = await http1(service().addresses.http, [
    `POST ${FLEET} HTTP/1.1`,
    "host: localhost",
    "content-type: application/json",
    "content-length: 2",
    "connection: close",
    ...authorizations.map((value, index) => `${index === 0 ? "authorization" : "Authorization"}: ${value}`),
  ]);
  return /"code":"(\w+)"/.exec(answer)?.[1] ?? /^HTTP\/1\.1 (\d+)/.exec(answer)?.[1] ?? "nothing";
}

/**
 * Header blocks are not compressed, so the trailers' text is in the frames unchanged, except for Huffman's
 * code.
 */
async function overHttp2(address: string, authorizations: readonly string[]): Promise<string> {
  const connection = await rawHttp2(address);
  const block = Buffer.concat([
    headerBlock(grpcHeaders(FLEET)),
    ...authorizations.map((value) => headerBlock({ authorization: value })),
  ]);
  await connection.send(
    frame(frames.HEADERS, frames.END_HEADERS, 1, block),
    frame(frames.DATA, frames.END_STREAM, 1, envelope("")),
  );
  const ended = () =>
    connection.received.some(({ flags, stream }) => stream === 1 && (flags & frames.END_STREAM) !== 0);
  const reset = () => connection.received.some(({ type }) => type === frames.RST_STREAM || type === frames.GOAWAY);
  await eventually("it is answered", () => ended() || reset() || connection.isClosed);
  const answered = connection.received.some(({ type, stream }) => type === frames.DATA && stream === 1);
  connection.socket.destroy();
  return answered ? "200" : "refused";
}

describe("the authorization header", () => {
  test("is required exactly once", async () => {
    const { grpc, http } = service().addresses;
    expect(await overHttp1([good])).toBe("200");
    expect(await overHttp2(grpc, [good])).toBe("200");
    expect(await overHttp2(http, [good])).toBe("200");
    for (const pair of [
      [good, other],
      [other, good],
      [good, good],
      [good, "Bearer x"],
      ["", good],
    ]) {
      expect(await overHttp1(pair)).toBe("unauthenticated");
      expect(await overHttp2(grpc, pair)).toBe("refused");
      expect(await overHttp2(http, pair)).toBe("refused");
    }
  });

  test("with a forbidden character is rejected, and its content is not logged", async () => {
    const { grpc, http } = service().addresses;
    const tail = good.slice(-24);
    const written: string[] = [];
    const write = process.stderr.write;
    // The output of this process, which runs the service: libraries could write there past the log.
    process.stderr.write = (chunk: string | Uint8Array): boolean => written.push(String(chunk)) > 0;
    try {
      for (const broken of [good.replace(" ", "\t"), `${good}\u00e9`, good.replace("hf_", "\u00ffhf_")]) {
        expect(await overHttp1([broken])).toBe("unauthenticated");
        expect(await overHttp2(grpc, [broken])).toBe("refused");
        expect(await overHttp2(http, [broken])).toBe("refused");
      }
      expect(await overHttp1([`${good}\0`])).toMatch(/^4\d\d$|invalid_argument|unauthenticated/);
    } finally {
      process.stderr.write = write;
    }
    expect(written.join("").includes(tail)).toBe(false);
    expect(service().logged.join("").includes(tail)).toBe(false);
  });
});
