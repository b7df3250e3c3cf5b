-- Claims agents for sessions, each with a new epoch, by the rule of isClaimGranted in src/domain/session-start.ts. A
-- fresh claim supersedes any session except a later stream (higher generation) of the same process. A superseded
-- session has to wait until no stream holds the agent. A resumed session gets the agent only if no other process has
-- held it since. After a restore, the row may be older than the session that the claiming stream still has.
--
-- The locked rows carry the claims with them: a second join without statistics would compare them row by row, a million
-- times for a thousand agents.
--
-- A heartbeat made the claim, and its renewal is written next. Until then a lease with less than two intervals left (of
-- three) is too short: perhaps only a guard of the former replica kept it alive, and an outage of this replica would be
-- detected too late. So it is renewed here.
WITH locked AS MATERIALIZED (
  SELECT l.agent, w.instance, w.generation, w.fresh, w.resumes, w.held_under, w.takes_wakes, $8::integer * interval '1 millisecond' * 2 / 3 AS two_intervals
  FROM unnest($1::text[], $2::text[], $3::uuid[], $4::numeric[], $5::boolean[], $6::boolean[], $9::bigint[], $10::boolean[])
    AS w (agent_id, claw_identifier, instance, generation, fresh, resumes, held_under, takes_wakes)
  JOIN agents a ON a.agent_id = w.agent_id
  JOIN agent_liveness l ON l.agent = a.id
  WHERE w.claw_identifier IS NULL OR a.claw_identifier = w.claw_identifier
  ORDER BY l.agent FOR UPDATE OF l
), history AS MATERIALIZED (
  -- Checked before new epochs are assigned, because epochs of a lost history may still be in use. After the locks, as
  -- always.
  SELECT CASE WHEN history_break() IS NOT NULL THEN (take_counter()).revision END AS revision
  FROM (SELECT count(*) FROM locked) every_lock
)
UPDATE agent_liveness l
SET epoch = nextval('agent_epochs'), replica_id = $7::integer, held = true, instance = k.instance, generation = k.generation,
  takes_wakes = k.takes_wakes,
  last_heartbeat = CASE WHEN l.lease_expires_at < clock_timestamp() + k.two_intervals THEN clock_timestamp() ELSE l.last_heartbeat END,
  lease_expires_at = CASE WHEN l.lease_expires_at < clock_timestamp() + k.two_intervals
    THEN clock_timestamp() + k.two_intervals * 1.5 ELSE l.lease_expires_at END
FROM locked k, history
WHERE l.agent = k.agent
  AND (k.held_under > l.epoch OR (
    (
      NOT l.held
      -- A session of a replica that is gone no longer holds the agent.
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
