// Prints how many tests of all given reports of vitest's JSON reporter passed, failed and were skipped. Fails where any failed, and
// where there is no report. A report that does not exist counts as none.
import { existsSync } from "node:fs";
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

const sum = (counts: readonly number[]): number => counts.reduce((total, count) => total + count, 0);

// A file that could not be loaded has no tests to fail. It counts as one failure, or it would not be seen.
function failures({ status, assertionResults }: Report["testResults"][number]): number {
  const failed = assertionResults.filter((test) => test.status === "failed").length;
  return status === "failed" ? Math.max(failed, 1) : failed;
}

const paths = process.argv.slice(2).filter((path) => existsSync(path));
const reports = await Promise.all(paths.map(async (path): Promise<Report> => JSON.parse(await readFile(path, "utf8"))));
const passed = sum(reports.map((report) => report.numPassedTests));
const failed = sum(reports.flatMap((report) => report.testResults.map(failures)));
const skipped = sum(reports.map((report) => report.numPendingTests + report.numTodoTests));
console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
if (failed > 0 || reports.length === 0) process.exitCode = 1;
