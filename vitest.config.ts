import { defineConfig } from "vitest/config";

// The name of a file tells its project: unit tests need neither PostgreSQL nor sockets, `*.slow.test.ts` is for `npm run test:slow`,
// and all others are fast. `npm test` runs unit and fast.
const UNIT = ["test/unit/**/*.test.ts", "packages/*/test/unit/**/*.test.ts"];
const SLOW = ["{test,packages/*/test}/**/*.slow.test.ts"];

// Files of unit and fast share the modules that their worker has loaded (`isolate: false`): importing the service anew for each file
// costs more than most of their tests.

// Once for a project's run: one PostgreSQL, whose template every test file clones.
const POSTGRES = ["test/support/global-setup.ts"];

export default defineConfig({
  test: {
    // More than cores: most tests wait for leases, sockets and the database.
    maxWorkers: 3,
    // Of tests that say that they may run side by side: those wait for leases mostly.
    maxConcurrency: 5,
    testTimeout: 30_000,
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
          isolate: false,
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: {
          name: "fast",
          include: ["{test,packages/*/test}/**/*.test.ts"],
          exclude: [...UNIT, ...SLOW],
          globalSetup: POSTGRES,
          // Processes, not threads: SIGTERM and uid are a process's own.
          pool: "forks",
          isolate: false,
          sequence: { groupOrder: 2 },
        },
      },
      {
        test: {
          name: "slow",
          include: SLOW,
          globalSetup: POSTGRES,
          pool: "forks",
          // A file that dies takes no other with it.
          isolate: true,
          sequence: { groupOrder: 3 },
        },
      },
    ],
  },
});
