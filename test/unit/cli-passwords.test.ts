import { expect, test } from "vitest";
import { withoutPasswords } from "../../common/secrets/redaction.ts";
import { createServiceClients } from "../../packages/client/src/index.ts";
import { runCli } from "../support/cli.ts";

test.each([
  ["http://u:hunter2@db:1/x", "http://…@db:1/x"],
  ["cannot open postgres://u:hun/ter2@db and stop", "cannot open postgres://…@db and stop"],
  ["postgres://u:p@hunter2@db", "postgres://…@db"],
  ["no address: a@b", "no address: a@b"],
])("passwords of URLs are not shown: %s", (text, shown) => {
  expect(withoutPasswords(text)).toBe(shown);
});

test.each([
  ["an address", ["agents", "list", "--address", "http://u:hunter2@localhost:1"], {}],
  ["an address with a space", ["agents", "list", "--address", "http://u:x hunter2@localhost:1"], {}],
  ["an address without a scheme", ["agents", "list", "--address", "u:hunter2@localhost:1"], {}],
  ["an address of another scheme", ["fleet", "--address=ftp://u:hunter2@localhost"], {}],
  ["an address in the environment", ["agents", "list"], { HARBORFORGE_ADDRESS: "http://u:hunter2@localhost:1" }],
  ["an option of another command", ["agents", "list", "--database-url=postgres://u:hunter2@db/x"], {}],
  ["a token in an unknown option", ["agents", "list", "--tokn=hunter2"], {}],
  ["a URL as a command", ["postgres://u:hunter2@db/x"], {}],
  ["a URL as an argument too many", ["agents", "list", "postgres://u:hunter2@db/x"], {}],
  ["a URL as a duration", ["agents", "list", "--timeout", "postgres://u:hunter2@db/x"], {}],
])("an error of the command line does not show the password of %s", async (_, args, env) => {
  const { code, stdout, stderr } = await runCli(args, env);
  expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
  expect(stderr).toMatch(/^error: /);
  expect(stderr).not.toContain("hunter2");
});

test("an invalid address of the client library is shown without its password", () => {
  expect(() => createServiceClients({ address: "http://u:hunter2@localhost:1" })).toThrow(
    /^address: "…@localhost:1" is invalid\./,
  );
});
