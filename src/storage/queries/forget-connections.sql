-- Deletes the addresses of claws that have no agents any more.
DELETE FROM claw_connections c
WHERE c.connected_at < clock_timestamp() - interval '1 day'
  AND NOT EXISTS (SELECT FROM agents a WHERE a.claw_identifier = c.claw_identifier)
