-- Records from which address claws connected.
INSERT INTO claw_connections AS c (claw_identifier, peer, connected_at)
SELECT w.claw_identifier, w.peer, clock_timestamp() FROM unnest($1::text[], $2::text[]) AS w (claw_identifier, peer)
ORDER BY w.claw_identifier
ON CONFLICT (claw_identifier) DO UPDATE SET peer = excluded.peer, connected_at = excluded.connected_at
