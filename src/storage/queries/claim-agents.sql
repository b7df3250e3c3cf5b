-- Sessions take agents over, each with a new epoch. A first claim wins over whoever holds the agent, except over a
-- later stream (higher generation) of the same claw process; a session that was superseded waits until nobody holds it.
WITH wanted AS (
  SELECT a.id, w.instance, w.generation, w.fresh
  FROM unnest($1::text[], $2::text[], $3::uuid[], $4::numeric[], $5::boolean[])
    AS w (agent_id, claw_identifier, instance, generation, fresh)
  JOIN agents a ON a.agent_id = w.agent_id
  WHERE w.claw_identifier IS NULL OR a.claw_identifier = w.claw_identifier
), locked AS MATERIALIZED (
  SELECT l.agent FROM agent_liveness l WHERE l.agent IN (SELECT id FROM wanted) ORDER BY l.agent FOR UPDATE
)
UPDATE agent_liveness l
SET epoch = nextval('agent_epochs'), replica_id = $6::integer, held = true, instance = w.instance, generation = w.generation
FROM wanted w JOIN locked k ON k.agent = w.id
WHERE l.agent = w.id
  AND (
    NOT l.held
    -- Held by a replica that is gone is held by nobody.
    OR NOT EXISTS (SELECT FROM replicas r WHERE r.id = l.replica_id AND r.adopted_by IS NULL)
    OR w.fresh AND NOT (l.instance IS NOT NULL AND l.instance = w.instance AND l.generation > w.generation)
  )
RETURNING l.agent, l.epoch
