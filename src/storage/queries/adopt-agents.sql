-- One page of the agents of a replica that is gone. No session holds them any more, as far as anybody knows; a session
-- that lives after all keeps its epoch, and goes on with its next heartbeat.
UPDATE agent_liveness l SET replica_id = $1::integer, held = false
FROM agents a
WHERE a.id = l.agent AND l.agent IN (
  SELECT agent FROM agent_liveness WHERE replica_id = $2::integer ORDER BY agent LIMIT 1000 FOR UPDATE SKIP LOCKED
)
RETURNING l.agent AS id, a.agent_id, l.lease_expires_at
