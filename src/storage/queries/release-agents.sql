-- Streams ended: their sessions no longer hold these agents. The leases continue.
UPDATE agent_liveness l SET held = false
FROM unnest($1::bigint[], $2::bigint[]) AS b (agent, epoch)
WHERE l.agent = b.agent AND l.epoch = b.epoch AND l.held
