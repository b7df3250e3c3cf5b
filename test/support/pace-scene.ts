import type { Duration } from "@bufbuild/protobuf/wkt";
import { millisOf } from "../../common/contract/timestamps.ts";
import type { RunningService } from "./service.ts";

export function durationMs(duration: Duration | undefined): number {
  if (duration === undefined) throw new TypeError("every answer has a pace");
  return millisOf(duration);
}

/** Agents as if they had existed for long, without heartbeats. */
export async function seed(service: RunningService, count: number, prefix: string): Promise<string[]> {
  await service.query(
    `WITH u AS (INSERT INTO users (username) SELECT $2 || n FROM generate_series(1, $1::integer) n RETURNING id, username),
     a AS (
       INSERT INTO agents (user_id, agent_id, claw_identifier, created_at, status_changed_at, revision)
       SELECT u.id, u.username, 'claw-1', clock_timestamp(), clock_timestamp(), c.revision FROM u, revision_counter c
       RETURNING id, revision
     )
     INSERT INTO agent_liveness (agent, revision, epoch, lease_expires_at)
     SELECT id, revision, nextval('agent_epochs'), clock_timestamp() + interval '1 hour' FROM a`,
    count,
    prefix,
  );
  return Array.from({ length: count }, (_, index) => `${prefix}${index + 1}`);
}
