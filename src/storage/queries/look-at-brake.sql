-- Counts whom the brake holds back, and releases it where the mass silence is over: few claws fell silent within the last
-- lease, and few are held back.
WITH measure AS MATERIALIZED (
  SELECT
    (SELECT count(*) FROM claw_incidents i WHERE i.began_at > clock_timestamp() - f.lease_ms * interval '1 millisecond') AS recent,
    o.agents, o.claws
  FROM fleet_state f, LATERAL (
    SELECT count(*) AS agents, count(DISTINCT a.claw_identifier) AS claws
    FROM agent_liveness l JOIN agents a ON a.id = l.agent
    WHERE f.brake_engaged_at IS NOT NULL AND l.lease_expires_at <= clock_timestamp()
  ) o
), looked AS (
  UPDATE fleet_state f SET brake_held_back = m.agents,
    brake_engaged_at = CASE WHEN is_mass_silence(m.recent, f.claws) OR is_mass_silence(m.claws, f.claws) THEN f.brake_engaged_at END
  FROM measure m
  WHERE f.brake_engaged_at IS NOT NULL
  RETURNING f.brake_engaged_at, f.brake_held_back
)
SELECT l.brake_engaged_at AS engaged_at, CASE WHEN l.brake_engaged_at IS NULL THEN 0 ELSE coalesce(l.brake_held_back, 0) END AS held_back
FROM fleet_state LEFT JOIN looked l ON true
