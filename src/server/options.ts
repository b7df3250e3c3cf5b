import type { ProgramLog } from "../../common/logging/logger.ts";
import type { AccessOptions } from "../access/access-control.ts";
import type { PaceLimits } from "../domain/lease.ts";
import type { CallLimits } from "../rpc/callers/call-limits.ts";
import type { AuditOptions } from "../rpc/pipeline/audit.ts";
import type { ConnectionLimits } from "../rpc/sockets/connection-gate.ts";
import type { TlsSettings } from "../rpc/tls/certificate-files.ts";
import type { OfferLimits } from "../storage/change-group.ts";
import type { RetentionLimits } from "../storage/transition-retention.ts";
import type { Tracing } from "../telemetry/tracing/tracing.ts";
import type { WatchingOptions } from "../watch/watching.ts";

/** The release that runs. */
export interface Release {
  readonly version: string;
  /** The commit that it was made of, or `unknown`. */
  readonly commit: string;
}

export interface ServerOptions {
  /** A migrated database. */
  readonly databaseUrl: string;
  /** The URL as it is now, if its user or password may change: new connections use these. Default: they do not. */
  readonly latestDatabaseUrl?: (() => Promise<string>) | undefined;
  /** `host:port` of the two listeners; port 0 takes a free one. */
  readonly grpcAddress: string;
  readonly httpAddress: string;
  readonly pace: PaceLimits;
  /** The first lease of a new agent, in milliseconds. */
  readonly firstLeaseMs: number;
  /** The transitions that are kept. Default: seven days of them, ten million at most. */
  readonly retention?: RetentionLimits;
  /** How long a wake is kept after its end, in milliseconds. Default seven days. */
  readonly wakeRetentionMs?: number | undefined;
  /** The limits of offers of wakes. Default: 100 a second, and 50 open ones of a claw. */
  readonly offerLimits?: OfferLimits | undefined;
  /** The maximum age of a watch stream, give or take a quarter, in milliseconds. Default 30 min. */
  readonly watchMaxAgeMs?: number | undefined;
  /** How callers are authenticated. Default: not at all. */
  readonly access?: AccessOptions;
  /** Smaller than the defaults in tests that exceed them. */
  readonly watchLimits?: Pick<WatchingOptions, "ringCapacity" | "queueLimit" | "pageSize">;
  /** The files of TLS. Absent: the listeners speak cleartext. */
  readonly tls?: TlsSettings | undefined;
  readonly connectionLimits?: ConnectionLimits;
  readonly callLimits?: CallLimits;
  /** Whether gRPC server reflection is served. Default true. */
  readonly reflection?: boolean;
  /** Whether responses are compressed for callers that accept it. Default true. */
  readonly compression?: boolean;
  /** The origins whose pages may call the Connect listener, as browsers send them. Default: none. */
  readonly allowedOrigins?: readonly string[] | undefined;
  readonly log: ProgramLog;
  /** Default: each change is a line of the log. */
  readonly audit?: AuditOptions;
  /** Undefined: tracing is off. */
  readonly tracing?: Tracing | undefined;
  /** For `harborforge_build_info`. Default: unknown, as in tests. */
  readonly release?: Release;
}
