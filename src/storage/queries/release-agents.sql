-- Streams ended: their sessions hold these agents no longer. The leases run on.
UPDATE agent_liveness l SET held = false
FROM unnest($1::bigint[], $2::bigint[]) AS b (agent, epoch)
WHERE l.agent = b.agent AND l.epoch = b.epoch AND l.held
