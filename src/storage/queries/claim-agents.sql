-- Sessions take agents over, each with a new epoch, by the rule of isClaimGranted in src/domain/session-start.ts. A fresh claim
-- wins over any session, except over a later stream (higher generation) of the same claw process; a session that was
-- superseded waits until nobody holds the agent. A session that is resumed gets the agent only if no other process has
-- held it since. A restore may bring back a session that is older than the one that the claiming stream still has.
-- What is wanted travels with what is locked: joined a second time, without statistics, the two would be compared row by
-- row, a million times for a thousand agents.
-- A heartbeat made the claim and is written next. Until then a lease with less than two intervals left (of three) is not enough:
-- perhaps only a guard of the former replica kept it, and an outage of this one would be noticed too late. So it is renewed here.
WITH locked AS MATERIALIZED (
  SELECT l.agent, w.instance, w.generation, w.fresh, w.resumes, w.held_under, $8::integer * interval '1 millisecond' * 2 / 3 AS two_intervals
  FROM unnest($1::text[], $2::text[], $3::uuid[], $4::numeric[], $5::boolean[], $6::boolean[], $9::bigint[])
    AS w (agent_id, claw_identifier, instance, generation, fresh, resumes, held_under)
  JOIN agents a ON a.agent_id = w.agent_id
  JOIN agent_liveness l ON l.agent = a.id
  WHERE w.claw_identifier IS NULL OR a.claw_identifier = w.claw_identifier
  ORDER BY l.agent FOR UPDATE OF l
), history AS MATERIALIZED (
  -- Before the new epochs are given: those of a history that was lost may still be in use. After the locks, as always.
  SELECT CASE WHEN history_break() IS NOT NULL THEN (take_counter()).revision END AS revision
  FROM (SELECT count(*) FROM locked) every_lock
)
UPDATE agent_liveness l
SET epoch = nextval('agent_epochs'), replica_id = $7::integer, held = true, instance = k.instance, generation = k.generation,
  last_heartbeat = CASE WHEN l.lease_expires_at < clock_timestamp() + k.two_intervals THEN clock_timestamp() ELSE l.last_heartbeat END,
  lease_expires_at = CASE WHEN l.lease_expires_at < clock_timestamp() + k.two_intervals
    THEN clock_timestamp() + k.two_intervals * 1.5 ELSE l.lease_expires_at END
FROM locked k, history
WHERE l.agent = k.agent
  AND (k.held_under > l.epoch OR (
    (
      NOT l.held
      -- Held by a replica that is gone is held by nobody.
      OR NOT EXISTS (SELECT FROM replicas r WHERE r.id = l.replica_id AND r.adopted_by IS NULL)
      OR k.fresh AND NOT (l.instance IS NOT NULL AND l.instance = k.instance AND l.generation > k.generation)
    )
    AND (
      NOT k.resumes
      OR l.instance IS NOT NULL AND l.instance = k.instance
      OR l.instance IS NOT NULL AND l.instance = '00000000-0000-0000-0000-000000000000'
      OR is_before_lost_history(l.epoch)
        AND (NOT l.held OR NOT EXISTS (SELECT FROM replicas r WHERE r.id = l.replica_id AND r.adopted_by IS NULL))
    )
  ))
RETURNING l.agent, l.epoch
