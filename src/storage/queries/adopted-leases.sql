-- One page of the leases of a replica that was adopted.
SELECT l.agent AS id, a.agent_id, l.lease_expires_at
FROM agent_liveness l JOIN agents a ON a.id = l.agent
WHERE l.replica_id = $1::integer AND l.agent > $2::bigint AND l.lease_expires_at IS NOT NULL
ORDER BY l.agent LIMIT 1000
