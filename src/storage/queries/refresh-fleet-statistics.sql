-- Fleet statistics: the size of the fleet, which determines the pace and the threshold of a mass silence. An agent has
-- a lease exactly if it is not offline. So it counts the table that heartbeats do not write, claw by claw, without
-- sorting the fleet. One replica counts at a time; the others take its result.
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
