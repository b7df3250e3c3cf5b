-- Replicas that this one adopted and whose agents are all offline, gone or heard elsewhere.
DELETE FROM replicas r
WHERE r.adopted_by = $1::integer AND NOT EXISTS (SELECT FROM agent_liveness l WHERE l.replica_id = r.id)
RETURNING r.id
