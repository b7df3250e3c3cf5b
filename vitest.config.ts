import { defineConfig } from "vitest/config";

// The name of a file says which project runs it. `npm test` runs unit and fast.
/** No PostgreSQL, no sockets. */
const UNIT = ["test/unit/**/*.test.ts", "packages/*/test/unit/**/*.test.ts"];
/** All that takes longer than a few seconds. Every other file is fast. */
const SLOW = ["{test,packages/*/test}/**/*.slow.test.ts"];
/** Fast runs a sample of their cases (protocols, seeds), slow the others. */
const SAMPLED = ["{test,packages/*/test}/**/*.sampled.test.ts"];

// Once for the run of a project: one PostgreSQL, whose template every test file clones.
const POSTGRES = ["test/support/global-setup.ts"];

export default defineConfig({
  test: {
    // More than cores: most tests wait for leases, sockets and the database.
    maxWorkers: 3,
    // Of tests that say that they may run side by side: those wait for leases mostly.
    maxConcurrency: 5,
    // They catch hangs, on the slowest machine that tests run on.
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // A cluster with work in its buffers stops in its own time.
    teardownTimeout: 60_000,
    projects: [
      {
        test: {
          name: "unit",
          include: UNIT,
          exclude: SLOW,
          pool: "threads",
          // Files share the modules that their worker has loaded: loading the service costs more than most tests.
          isolate: false,
          restoreMocks: true,
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: {
          name: "fast",
          include: ["{test,packages/*/test}/**/*.test.ts"],
          exclude: [...UNIT, ...SLOW],
          globalSetup: POSTGRES,
          provide: { cases: "sample" },
          // Processes, not threads: SIGTERM and uid are a process's own.
          pool: "forks",
          isolate: false,
          restoreMocks: true,
          sequence: { groupOrder: 2 },
        },
      },
      {
        test: {
          name: "slow",
          include: [...SLOW, ...SAMPLED],
          globalSetup: POSTGRES,
          provide: { cases: "others" },
          pool: "forks",
          // A file that ends its process ends no other.
          isolate: true,
          sequence: { groupOrder: 3 },
        },
      },
    ],
  },
});
