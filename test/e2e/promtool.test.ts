import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { OBSERVABILITY } from "../../scripts/observability.ts";
import { root, runTool } from "../../scripts/run-tool.ts";
import { spawn } from "../support/owned-process.ts";
import { prometheusProgram } from "../support/prometheus.ts";
import { startService } from "../support/service.ts";

const promtool = prometheusProgram("promtool") ?? "";

describe.skipIf(promtool === "")("promtool", () => {
  test("accepts the rules", async () => {
    const files = ["recording.yml", "alerts.yml"].map((file) => join(OBSERVABILITY, file));
    expect(await runTool(promtool, ["check", "rules", "--lint-fatal", ...files])).toMatchObject({ ok: true });
  });

  test("finds that each alert fires when it should, and not before", async () => {
    expect(await runTool(promtool, ["test", "rules", join(root, "test/observability/rules.yml")])).toMatchObject({
      ok: true,
    });
  });

  test("finds no problem in the metrics of a replica", async () => {
    await using service = await startService();
    const page = await (await fetch(`http://${service.addresses.http}/metrics`)).text();
    expect(await checkMetrics(page)).toEqual({ code: 0, output: "" });
  });

  test("finds a problem in metrics with a wrong name", async () => {
    const page = "# HELP wrong_total A gauge.\n# TYPE wrong_total gauge\nwrong_total 1\n";
    expect(await checkMetrics(page)).toMatchObject({ code: 3 });
  });
});

async function checkMetrics(page: string): Promise<{ code: number | null; output: string }> {
  const child = spawn(promtool, ["check", "metrics"], { stdio: ["pipe", "pipe", "pipe"] });
  const chunks: Buffer[] = [];
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk: Buffer) => chunks.push(chunk));
  child.stdin.end(page);
  const code = await new Promise<number | null>((resolve) => child.on("close", resolve));
  return { code, output: Buffer.concat(chunks).toString() };
}
