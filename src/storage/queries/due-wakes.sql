-- One page of the wakes on which the service has to act before a moment, in order, after a position. `watcher`: the
-- replica that watches the lease of the agent; null: none does.
SELECT d.id, d.wake_id, d.agent, d.agent_id, d.due_at, coalesce(r.adopted_by, r.id) AS watcher, clock_timestamp() AS read_at
FROM (
  SELECT w.id, w.wake_id, w.agent, w.agent_id, wake_due_at(w.state, w.expires_at, w.answer_by, w.abandon_at) AS due_at
  FROM wakes w
  WHERE w.state IN ('queued', 'offered', 'accepted')
    AND wake_due_at(w.state, w.expires_at, w.answer_by, w.abandon_at) < $1::timestamptz
    AND (wake_due_at(w.state, w.expires_at, w.answer_by, w.abandon_at), w.id) > ($2::timestamptz, $3::bigint)
  ORDER BY wake_due_at(w.state, w.expires_at, w.answer_by, w.abandon_at), w.id
  LIMIT 5000
) d LEFT JOIN agent_liveness l ON l.agent = d.agent LEFT JOIN replicas r ON r.id = l.replica_id
ORDER BY d.due_at, d.id
