-- The census: how large the fleet is, by which the pace is set and a mass silence is measured. One replica at a time
-- counts, the others take what it found.
WITH turn AS MATERIALIZED (SELECT pg_try_advisory_xact_lock($1::bigint) AS mine),
census AS MATERIALIZED (
  SELECT count(*) AS agents, count(DISTINCT a.claw_identifier) AS claws
  FROM agent_liveness l JOIN agents a ON a.id = l.agent
  WHERE (SELECT mine FROM turn) AND l.lease_expires_at IS NOT NULL
)
UPDATE fleet_state f SET
  agents = CASE WHEN t.mine THEN c.agents ELSE f.agents END,
  claws = CASE WHEN t.mine THEN c.claws ELSE f.claws END,
  interval_ms = $2::bigint, lease_ms = $3::bigint
FROM turn t, census c
RETURNING f.agents
