import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { expect, test } from "vitest";
import { checkout } from "../../../../test/support/program.ts";

/** What a page loads: the watch entry with a transport of connect-web. */
const PAGE = `
import { createConnectTransport } from "@connectrpc/connect-web";
import { createAgentCache, watchAgents } from "harborforge-agents-client/watch";
globalThis.page = { createConnectTransport, createAgentCache, watchAgents };
`;
const MOST_BYTES = 40 * 1_024;

test("the watch entry with connect-web is at most 40 kB for a page, and has no descriptors but those of a watch", async () => {
  const { outputFiles, metafile } = await build({
    stdin: { contents: PAGE, resolveDir: join(checkout, "packages/client"), loader: "js" },
    absWorkingDir: checkout,
    bundle: true,
    minify: true,
    format: "esm",
    platform: "browser",
    metafile: true,
    write: false,
  });
  const [bundle] = outputFiles;
  if (bundle === undefined) throw new Error("esbuild made no bundle");
  const bytes = gzipSync(bundle.contents).length;
  process.stderr.write(`client/watch with connect-web: ${bundle.contents.length} bytes minified, ${bytes} gzipped\n`);
  expect(bytes).toBeLessThanOrEqual(MOST_BYTES);
  const [output] = Object.values(metafile.outputs);
  const loaded = Object.entries(output?.inputs ?? {}).filter(([, { bytesInOutput }]) => bytesInOutput > 0);
  const contract = loaded.map(([file]) => file).filter((file) => /^gen\/|protovalidate/.test(file));
  expect(contract.sort()).toEqual([
    "gen/watch/google/rpc/error_details_pb.ts",
    "gen/watch/harborforge/agents/v1/agent_pb.ts",
    "gen/watch/harborforge/agents/v1/agent_service_pb.ts",
  ]);
});
