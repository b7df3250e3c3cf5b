-- A replica that is gone and whose agents were all adopted.
DELETE FROM replicas r
WHERE r.id = $1::integer AND r.seen_at < clock_timestamp() - $2::integer * interval '1 millisecond'
  AND NOT EXISTS (SELECT FROM agent_liveness l WHERE l.replica_id = r.id)
