-- Counts the agents that the brake holds back. Releases the brake if the mass silence is over: few claws fell silent
-- within the last lease, and few are held back.
WITH measure AS MATERIALIZED (
  SELECT o.agents, is_mass_silence(
    (SELECT count(*) FROM claw_incidents i WHERE i.began_at > clock_timestamp() - f.lease_ms * interval '1 millisecond'), f.claws
  ) OR is_mass_silence(o.claws, f.claws) AS goes_on
  FROM fleet_state f, LATERAL (
    SELECT coalesce(sum(c.agents), 0) AS agents, count(*) FILTER (WHERE c.is_heard) AS claws
    FROM (
      SELECT count(*) AS agents, bool_or(is_heard(l)) AS is_heard FROM agent_liveness l JOIN agents a ON a.id = l.agent
      WHERE f.brake_engaged_at IS NOT NULL AND l.lease_expires_at <= clock_timestamp()
      GROUP BY a.claw_identifier
    ) c
  ) o
), looked AS (
  UPDATE fleet_state f SET brake_held_back = m.agents,
    brake_engaged_at = CASE WHEN m.goes_on THEN f.brake_engaged_at END,
    brake_released_at = CASE WHEN m.goes_on THEN f.brake_released_at ELSE clock_timestamp() END
  FROM measure m
  WHERE f.brake_engaged_at IS NOT NULL
  RETURNING f.brake_engaged_at, f.brake_held_back, f.brake_released_at
)
SELECT l.brake_engaged_at AS engaged_at, coalesce(l.brake_released_at, f.brake_released_at) AS released_at,
  CASE WHEN l.brake_engaged_at IS NULL THEN 0 ELSE coalesce(l.brake_held_back, 0) END AS held_back
FROM fleet_state f LEFT JOIN looked l ON true
