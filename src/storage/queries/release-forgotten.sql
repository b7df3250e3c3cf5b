-- After a restore: sessions of this replica that came back with their rows, and that it does not have. Another session
-- followed each of them in the history that was lost, so nobody holds these agents until somebody claims them.
UPDATE agent_liveness l SET held = false
WHERE l.replica_id = $1::integer AND l.held
  AND l.epoch < (SELECT max(j.epoch) FROM revision_jumps j WHERE lost_history(coalesce(j.reason, '')))
  AND NOT EXISTS (
    SELECT FROM unnest($2::bigint[], $3::bigint[]) AS h (agent, epoch) WHERE h.agent = l.agent AND h.epoch = l.epoch
  )
