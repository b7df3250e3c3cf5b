-- Fleet statistics: how large the fleet is, by which the pace is set and a mass silence is measured. Who has a lease is not
-- offline, and the other way round; so it is counted where heartbeats write nothing, claw by claw, without sorting the fleet.
-- One replica at a time counts, the others take what it found.
WITH turn AS MATERIALIZED (SELECT pg_try_advisory_xact_lock($1::bigint) AS mine),
statistics AS MATERIALIZED (
  SELECT coalesce(sum(c.agents), 0) AS agents, count(*) AS claws
  FROM (SELECT count(*) AS agents FROM agents a WHERE (SELECT mine FROM turn) AND a.status <> 'offline' GROUP BY a.claw_identifier) c
)
UPDATE fleet_state f SET
  agents = CASE WHEN t.mine THEN c.agents ELSE f.agents END,
  claws = CASE WHEN t.mine THEN c.claws ELSE f.claws END
FROM turn t, statistics c
RETURNING f.agents
