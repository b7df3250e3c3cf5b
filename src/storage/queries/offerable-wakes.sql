-- The heads of the queues of agents that a session of this replica holds and that can be woken now, in the order of
-- creation: as many as the bucket has tokens, and as their claws have room. The commit checks all of it again.
WITH first AS MATERIALIZED (
  SELECT w.agent, min(w.id) AS id FROM wakes w WHERE w.state = 'queued' GROUP BY w.agent
), heads AS MATERIALIZED (
  SELECT w.id, w.wake_id, w.agent, w.agent_id, a.claw_identifier
  FROM first f JOIN agents a ON a.id = f.agent JOIN agent_liveness l ON l.agent = f.agent JOIN wakes w ON w.id = f.id
  WHERE w.expires_at > clock_timestamp() AND a.status = 'idle'
    AND l.replica_id = $1::integer AND l.held AND l.takes_wakes AND l.lease_expires_at > clock_timestamp()
    AND NOT EXISTS (SELECT FROM pauses_in_force p WHERE p.agent = a.id)
    AND NOT EXISTS (SELECT FROM pauses_in_force p WHERE p.claw_identifier = a.claw_identifier)
), placed AS (
  SELECT h.*, row_number() OVER (PARTITION BY h.claw_identifier ORDER BY h.id) AS place FROM heads h
), room AS (
  SELECT c.claw_identifier, $3::integer - (SELECT count(*) FROM wakes w WHERE w.offered_on = c.claw_identifier AND w.state = 'offered') AS free
  FROM (SELECT DISTINCT claw_identifier FROM heads) c
)
SELECT p.wake_id, p.agent, p.agent_id
FROM placed p JOIN room r USING (claw_identifier)
WHERE p.place <= r.free
ORDER BY p.id
LIMIT (
  SELECT greatest(0, floor(least(greatest(1, $2::double precision),
    b.tokens + $2::double precision * extract(epoch FROM clock_timestamp() - b.filled_at)::double precision)))::bigint
  FROM wake_bucket b
)
