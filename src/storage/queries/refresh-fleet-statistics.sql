-- Fleet statistics: the size of the fleet, which determines the pace and the threshold of a mass silence, and how many
-- agents have each status. An agent has a lease exactly if it is not offline. So it counts the table that heartbeats do
-- not write, claw by claw, without sorting the fleet. One replica counts at a time; the others take its result.
WITH turn AS MATERIALIZED (SELECT pg_try_advisory_xact_lock($1::bigint) AS mine),
parts AS MATERIALIZED (
  SELECT a.claw_identifier, a.status, a.exhaust_reason, count(*) AS agents
  FROM agents a WHERE (SELECT mine FROM turn) GROUP BY a.claw_identifier, a.status, a.exhaust_reason
), by_claw AS MATERIALIZED (
  SELECT coalesce(sum(agents) FILTER (WHERE status <> 'offline'), 0) AS online FROM parts GROUP BY claw_identifier
), statistics AS MATERIALIZED (
  SELECT coalesce(sum(online), 0) AS agents, count(*) FILTER (WHERE online > 0) AS claws,
    count(*) FILTER (WHERE online = 0) AS offline_claws
  FROM by_claw
), tally AS MATERIALIZED (
  SELECT jsonb_build_object(
    'statuses', (SELECT coalesce(jsonb_object_agg(status, agents), '{}') FROM (SELECT status, sum(agents) AS agents FROM parts GROUP BY status) s),
    'exhausted', (
      SELECT coalesce(jsonb_object_agg(exhaust_reason, agents), '{}')
      FROM (SELECT exhaust_reason, sum(agents) AS agents FROM parts WHERE exhaust_reason IS NOT NULL GROUP BY exhaust_reason) r
    ),
    'claws', (SELECT jsonb_build_object('online', claws, 'offline', offline_claws) FROM statistics)
  ) AS tally
)
UPDATE fleet_state f SET
  agents = CASE WHEN t.mine THEN c.agents ELSE f.agents END,
  claws = CASE WHEN t.mine THEN c.claws ELSE f.claws END
FROM turn t, statistics c, tally y
RETURNING f.agents, CASE WHEN t.mine THEN y.tally END AS tally
