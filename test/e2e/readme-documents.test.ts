import { existsSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { describe, expect, test } from "vitest";
import { checkout } from "../support/program.ts";

const pages = (await readdir(join(checkout, "docs")))
  .filter((name) => name.endsWith(".md"))
  .map((name) => `docs/${name}`);
const top = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", ...pages];
const decisions = (await readdir(join(checkout, "docs/adr"))).map((name) => `docs/adr/${name}`);

test("every invariant of ARCHITECTURE.md names existing tests", async () => {
  const architecture = await readFile(join(checkout, "ARCHITECTURE.md"), "utf8");
  const invariants = architecture.slice(architecture.indexOf("## Invariants")).split(/^- /m).slice(1);
  expect(invariants.length).toBeGreaterThan(20);
  for (const invariant of invariants) {
    const tests = [...invariant.matchAll(/^ {2}- `(\S+)`: "(.+)"$/gm)];
    expect(tests.length, `the tests of: ${invariant}`).toBeGreaterThan(0);
    for (const [line, file = "", title = ""] of tests) {
      const source = await readFile(join(checkout, file), "utf8").catch(() => "");
      expect(source.includes(`"${title}"`) || source.includes(`\`${title}\``), line).toBe(true);
    }
  }
});

/** The anchors that GitHub gives to the headings of a page. */
function anchorsOf(markdown: string): ReadonlySet<string> {
  const headings = [...markdown.replace(/^```[\s\S]*?^```$/gm, "").matchAll(/^#+ (.+)$/gm)].map(
    ([, text = ""]) => text,
  );
  return new Set(
    headings.map((text) =>
      text
        .toLowerCase()
        .replace(/[^\p{L}\p{N} _-]/gu, "")
        .replaceAll(" ", "-"),
    ),
  );
}

describe.each([...top, ...decisions])("%s", (name) => {
  test("links to files and headings that exist", async () => {
    const text = await readFile(join(checkout, name), "utf8");
    for (const [link, target = "", anchor] of text.matchAll(/\]\(([^)#\s]*)(?:#([^)\s]*))?\)/g)) {
      if (/^https?:/.test(target)) continue;
      const file = target === "" ? join(checkout, name) : resolve(checkout, dirname(name), target);
      expect(existsSync(file), link).toBe(true);
      if (anchor !== undefined && file.endsWith(".md"))
        expect(anchorsOf(await readFile(file, "utf8")), link).toContain(anchor);
    }
  });
});

test("docs/README.md leads to every page", async () => {
  const index = await readFile(join(checkout, "docs/README.md"), "utf8");
  for (const page of pages.filter((name) => name !== "docs/README.md"))
    expect(index, page).toContain(`](${page.slice("docs/".length)}`);
});

test("docs/decisions.md lists every decision with its title", async () => {
  const index = await readFile(join(checkout, "docs/decisions.md"), "utf8");
  for (const name of decisions) {
    const [, title] = /^# (.+)$/m.exec(await readFile(join(checkout, name), "utf8")) ?? [];
    expect(index, name).toContain(`- [${title}](${name.slice("docs/".length)})`);
  }
});

test("decisions are numbered without gaps and have their parts", async () => {
  const numbers = decisions.map((name) => /\/(\d{4})-[a-z0-9-]+\.md$/.exec(name)?.[1]).sort();
  expect(numbers).toEqual(decisions.map((_, index) => String(index + 1).padStart(4, "0")));
  for (const name of decisions) {
    const text = await readFile(join(checkout, name), "utf8");
    const number = Number(name.slice("docs/adr/".length).slice(0, 4));
    expect(text, name).toMatch(new RegExp(`^# ${number}\\. \\S`));
    expect(text, name).toMatch(/^## Context\n[\s\S]+^## Decision\n[\s\S]+^## Consequences\n/m);
  }
});
