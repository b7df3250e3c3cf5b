-- What this replica has adopted, without those whose agents are all offline, gone or heard elsewhere: they are forgotten.
WITH gone AS (
  DELETE FROM replicas r
  WHERE r.adopted_by = $1::integer AND NOT EXISTS (SELECT FROM agent_liveness l WHERE l.replica_id = r.id)
  RETURNING r.id
)
SELECT r.id, r.no_lease_ends_before FROM replicas r
WHERE r.adopted_by = $1::integer AND NOT EXISTS (SELECT FROM gone g WHERE g.id = r.id)
