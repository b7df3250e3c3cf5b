-- Releases the brake where the mass silence is over: few claws fell silent within the last lease, and few are held back.
WITH measure AS MATERIALIZED (
  SELECT
    (SELECT count(*) FROM claw_incidents i WHERE i.began_at > clock_timestamp() - f.lease_ms * interval '1 millisecond') AS recent,
    o.agents, o.claws
  FROM fleet_state f, LATERAL (
    SELECT count(*) AS agents, count(DISTINCT a.claw_identifier) AS claws
    FROM agent_liveness l JOIN agents a ON a.id = l.agent
    WHERE f.brake_engaged_at IS NOT NULL AND l.lease_expires_at <= clock_timestamp()
  ) o
), released AS (
  UPDATE fleet_state f SET brake_engaged_at = NULL FROM measure m
  WHERE f.brake_engaged_at IS NOT NULL AND NOT is_mass_silence(m.recent, f.claws) AND NOT is_mass_silence(m.claws, f.claws)
  RETURNING f.singleton
)
SELECT CASE WHEN EXISTS (SELECT FROM released) THEN NULL ELSE f.brake_engaged_at END AS engaged_at,
  CASE WHEN f.brake_engaged_at IS NULL THEN 0 ELSE m.agents END AS held_back
FROM fleet_state f, measure m
