-- Whether agents can be woken, beside what every change is judged by. The commit checks it again, under its locks.
SELECT l.agent, l.takes_wakes, EXISTS (SELECT FROM replicas r WHERE r.id = l.replica_id AND r.adopted_by IS NULL) AS is_served,
  (SELECT p.pause FROM pauses_in_force p WHERE p.agent = a.id OR p.claw_identifier = a.claw_identifier ORDER BY p.agent LIMIT 1) AS pause,
  (SELECT min(w.id) FROM wakes w WHERE w.agent = l.agent AND w.state = 'queued') AS first_queued
FROM agent_liveness l JOIN agents a ON a.id = l.agent
WHERE l.agent = ANY ($1::bigint[])
