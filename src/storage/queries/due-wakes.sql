-- One page of the wakes on which the service has to act before a moment, in order, after a position. `watcher`: the
-- replica that watches the lease of the agent; null: none does.
SELECT w.id, w.wake_id, w.agent, w.agent_id, w.due_at, coalesce(r.adopted_by, r.id) AS watcher, clock_timestamp() AS read_at
FROM wakes w LEFT JOIN agent_liveness l ON l.agent = w.agent LEFT JOIN replicas r ON r.id = l.replica_id
WHERE w.due_at IS NOT NULL AND w.due_at < $1::timestamptz AND (w.due_at, w.id) > ($2::timestamptz, $3::bigint)
ORDER BY w.due_at, w.id
LIMIT 5000
