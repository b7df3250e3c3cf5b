import { expect, test } from "vitest";
import { openMint } from "../support/access.ts";
import { createTestDatabase } from "../support/cluster.ts";
import { HOSTILE_CHARACTERS } from "../support/hostile-text.ts";
import { openStage } from "../support/program.ts";

/** Characters that a name may contain: no control characters, no lone surrogate. */
const ALLOWED = HOSTILE_CHARACTERS.filter(([, character]) => !/[\p{Cc}\p{Cs}]/u.test(character));

test("commands that list and revoke tokens show hostile principals escaped", async () => {
  await using database = await createTestDatabase();
  await using mint = openMint(database.url);
  const principal = `ada${ALLOWED.map(([, character]) => character).join("x")}\u202e`;
  const { token } = await mint.tokens.issue(
    { principal, grant: { role: "viewer" }, lifetimeMs: 3_600_000 },
    { actor: "user:test", request: undefined },
  );
  await using stage = await openStage();
  const env = { DATABASE_URL: database.url };
  for (const args of [["list"], ["revoke", token.keyId]]) {
    const { code, stdout, stderr } = await stage.program(["tokens", ...args], { env }).ended;
    expect({ code, stderr: stderr.includes("\u202e") }).toEqual({ code: 0, stderr: false });
    expect(stdout).toContain("ada");
    expect(stdout.replaceAll("\t", " ")).not.toMatch(/[\u202a-\u202e\u2066-\u2069\u200e\u200f\u061c\ufeff\u200b]/);
    expect(stdout).toContain("\\u{202e}");
  }
});
