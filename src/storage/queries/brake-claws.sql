-- The silent claws of a mass silence, as far as the brake has noticed them: all of them, and some by name.
WITH silent AS (
  SELECT i.claw_identifier, i.incident_id, i.began_at FROM claw_incidents i, fleet_state f
  WHERE i.last_at > $1::timestamptz - f.lease_ms * interval '1 millisecond'
)
SELECT (SELECT count(*) FROM silent) AS claws, s.claw_identifier, s.incident_id, p.peer,
  (SELECT max(l.last_heartbeat) FROM agents a JOIN agent_liveness l ON l.agent = a.id
   WHERE a.claw_identifier = s.claw_identifier) AS last_heartbeat
FROM silent s LEFT JOIN claw_connections p ON p.claw_identifier = s.claw_identifier
ORDER BY s.began_at, s.claw_identifier
LIMIT 20
