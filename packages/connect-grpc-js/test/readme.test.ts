import { readFile } from "node:fs/promises";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { execFile } from "../../../test/support/owned-process.ts";

const folder = dirname(dirname(fileURLToPath(import.meta.url)));

test("the README's example serves in ten lines", async () => {
  const readme = await readFile(`${folder}/README.md`, "utf8");
  const [, code = ""] = /```ts\n([\s\S]*?)```/.exec(readme) ?? [];
  expect(
    code
      .trim()
      .split("\n")
      .filter((line) => line !== "").length,
  ).toBeLessThanOrEqual(10);
  // The example's generated code is the tests' service, and its port may be taken here.
  const program = code
    .replace("./gen/echo_pb.ts", "./test/echo.ts")
    .replace("127.0.0.1:8080", "127.0.0.1:0")
    .replace("console.log(error ?? port)", "say(port)");
  const say = `async function say(port: number) {
    const { EchoClient } = await import("./test/echo.ts");
    console.log(await new EchoClient(\`127.0.0.1:\${port}\`).call("Say", ["hello"]));
    process.exit();
  }`;
  const { stdout } = await promisify(execFile)(
    process.execPath,
    ["--input-type=module-typescript", "--eval", `${program}${say}`],
    { cwd: folder, timeout: 20_000 },
  );
  expect(stdout).toContain("hello!");
});
