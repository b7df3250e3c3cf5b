import { readdir } from "node:fs/promises";
import { expect, test } from "vitest";
import { openStage } from "../support/program.ts";

test("all invalid settings are named, and a secret is not repeated", async () => {
  await using stage = await openStage();
  const env = {
    DATABASE_URL: "mysql://root:hunter2@db/x",
    HARBORFORGE_GRPC_ADDRESS: "nowhere",
    HARBORFORGE_LOG_LEVEL: "loud",
  };
  const { code, stdout, stderr } = await stage.program(["serve"], { env }).ended;
  expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
  const lines = stderr.trimEnd().split("\n");
  expect(lines.map((line) => line.split(" ")[0])).toEqual(Object.keys(env));
  expect(stderr).not.toContain("hunter2");
  expect(await readdir(stage.path)).not.toContain("data");
});
