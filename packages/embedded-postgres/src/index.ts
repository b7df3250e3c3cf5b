export { defaultDataDir } from "./data-folder.ts";
export {
  type EmbeddedPostgres,
  type EmbeddedPostgresLog,
  type EmbeddedPostgresOptions,
  startEmbeddedPostgres,
} from "./embedded-postgres.ts";
export { EmbeddedPostgresError, type EmbeddedPostgresErrorReason } from "./embedded-postgres-error.ts";
export { POSTGRES_EVENTS } from "./log-events.ts";
export { runningPostgres } from "./running-postgres.ts";
export type { ServerSettings } from "./server-settings.ts";
