-- Deletes the adopted replicas whose agents are all offline, deleted or at other replicas. Returns the other replicas
-- that this one has adopted.
WITH gone AS (
  DELETE FROM replicas r
  WHERE r.adopted_by = $1::integer AND NOT EXISTS (SELECT FROM agent_liveness l WHERE l.replica_id = r.id)
  RETURNING r.id
)
SELECT r.id, r.no_lease_ends_before FROM replicas r
WHERE r.adopted_by = $1::integer AND NOT EXISTS (SELECT FROM gone g WHERE g.id = r.id)
