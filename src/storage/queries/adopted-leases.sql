-- One page of the leases of an adopted replica. The subquery selects the page by its index before the join: otherwise
-- each page would read all rows before it.
SELECT l.agent AS id, a.agent_id, l.lease_expires_at
FROM (
  SELECT agent, lease_expires_at FROM agent_liveness
  WHERE replica_id = $1::integer AND agent > $2::bigint AND lease_expires_at IS NOT NULL
  ORDER BY agent LIMIT 5000
) l JOIN agents a ON a.id = l.agent
ORDER BY l.agent
