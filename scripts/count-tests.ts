// Prints how many tests of a report of vitest's JSON reporter passed, failed and were skipped, and fails where any failed.
import { readFile } from "node:fs/promises";

interface Report {
  readonly numPassedTests: number;
  readonly numPendingTests: number;
  readonly numTodoTests: number;
  readonly testResults: readonly {
    readonly status: string;
    readonly assertionResults: readonly { readonly status: string }[];
  }[];
}

const [path] = process.argv.slice(2);
if (path === undefined) throw new Error("usage: count-tests.ts <report.json>");
const report: Report = JSON.parse(await readFile(path, "utf8"));

// A file that could not even be loaded has no tests to fail: it counts as one, or it would not be seen.
const failed = report.testResults
  .map(({ status, assertionResults }) => {
    const tests = assertionResults.filter((test) => test.status === "failed").length;
    return status === "failed" ? Math.max(tests, 1) : tests;
  })
  .reduce((sum, count) => sum + count, 0);
const skipped = report.numPendingTests + report.numTodoTests;
console.log(`${report.numPassedTests} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`);
if (failed > 0) process.exitCode = 1;
