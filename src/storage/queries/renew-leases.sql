-- A batch of heartbeats that changed nothing. Each applies only if epoch and revision still match. The others are
-- returned, to be read and judged again. The caller sorts by id, so rows are mostly locked in that order. If the
-- planner chooses another order, overlapping batches of two replicas may deadlock, and one is repeated.
WITH renewed AS (
  UPDATE agent_liveness l
  SET last_heartbeat = clock_timestamp(), held = l.held OR b.held, lease_expires_at = clock_timestamp() + b.lease_ms * interval '1 millisecond'
  FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::integer[], $5::boolean[])
    AS b (agent, epoch, revision, lease_ms, held)
  WHERE l.agent = b.agent AND l.epoch = b.epoch AND l.revision = b.revision
  RETURNING l.agent
)
SELECT
  CASE
    WHEN (SELECT count(*) FROM renewed) = cardinality($1::bigint[]) THEN '{}'::text[]
    ELSE ARRAY(SELECT unnest($1::bigint[])::text EXCEPT SELECT agent::text FROM renewed)
  END AS missed,
  clock_timestamp() AS read_at
