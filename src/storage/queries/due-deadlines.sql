-- One page of the stored deadlines before a moment, in order, after a position: of the agents that this replica watches,
-- because it holds or has adopted them, and of those that no replica watches.
SELECT d.agent AS id, a.agent_id, d.kind, d.due_at, l.replica_id, clock_timestamp() AS read_at
FROM agent_deadlines d
JOIN agents a ON a.id = d.agent
JOIN agent_liveness l ON l.agent = d.agent
LEFT JOIN replicas r ON r.id = l.replica_id
WHERE d.due_at < $2::timestamptz AND (r.id IS NULL OR coalesce(r.adopted_by, r.id) = $1::integer)
  AND (d.due_at, d.agent) > ($3::timestamptz, $4::bigint)
ORDER BY d.due_at, d.agent
LIMIT 5000
