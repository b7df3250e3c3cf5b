-- The backstop: leases that expired a while ago and that no replica noticed. It is a full scan, so one replica does it
-- at a time. While the brake holds agents back, their replicas know of them, and a second request would take tokens
-- from others.
WITH turn AS MATERIALIZED (SELECT pg_try_advisory_xact_lock($1::bigint) AS mine)
SELECT l.agent AS id, a.agent_id, l.lease_expires_at
FROM agent_liveness l JOIN agents a ON a.id = l.agent, fleet_state f
WHERE (SELECT mine FROM turn) AND l.lease_expires_at < clock_timestamp() - interval '1 second' AND (
  f.brake_engaged_at IS NULL
  OR l.lease_expires_at < clock_timestamp() - 4 * f.lease_ms * interval '1 millisecond'
  OR NOT EXISTS (SELECT FROM replicas r WHERE r.id = l.replica_id)
)
LIMIT 20000
