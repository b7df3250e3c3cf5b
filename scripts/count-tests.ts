// Prints the numbers of passed, failed and skipped tests of a vitest JSON report. Fails if a test failed.
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

// A file that failed to load has no tests, so it counts as one failure.
const failed = report.testResults
  .map(({ status, assertionResults }) => {
    const tests = assertionResults.filter((test) => test.status === "failed").length;
    return status === "failed" ? Math.max(tests, 1) : tests;
  })
  .reduce((sum, count) => sum + count, 0);
const skipped = report.numPendingTests + report.numTodoTests;
console.log(`${report.numPassedTests} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`);
if (failed > 0) process.exitCode = 1;
