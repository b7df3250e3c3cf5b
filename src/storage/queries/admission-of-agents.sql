-- Whether agents can be woken, beside what every change is judged by. The commit checks it again, under its locks.
SELECT l.agent, l.takes_wakes, EXISTS (SELECT FROM replicas r WHERE r.id = l.replica_id AND r.adopted_by IS NULL) AS is_served,
  k.pause, (SELECT min(w.id) FROM wakes w WHERE w.agent = l.agent AND w.state = 'queued') AS first_queued
FROM agent_liveness l JOIN wakes_of_agents k ON k.agent = l.agent
WHERE l.agent = ANY ($1::bigint[])
