-- After a restore: sessions that the restored rows attribute to this replica, and that it does not have. A lost session
-- followed each of them, so no session holds these agents until the next claim.
UPDATE agent_liveness l SET held = false
WHERE l.replica_id = $1::integer AND l.held
  AND l.epoch < (SELECT max(j.epoch) FROM revision_jumps j WHERE lost_history(coalesce(j.reason, '')))
  AND NOT EXISTS (
    SELECT FROM unnest($2::bigint[], $3::bigint[]) AS h (agent, epoch) WHERE h.agent = l.agent AND h.epoch = l.epoch
  )
