-- The backstop: leases that ended a while ago and that nobody noticed. A full scan, so one replica at a time.
WITH turn AS MATERIALIZED (SELECT pg_try_advisory_xact_lock($1::bigint) AS mine)
SELECT l.agent AS id, a.agent_id, l.lease_expires_at
FROM agent_liveness l JOIN agents a ON a.id = l.agent
WHERE (SELECT mine FROM turn) AND l.lease_expires_at < clock_timestamp() - interval '1 second'
LIMIT 20000
