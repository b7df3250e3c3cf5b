-- Registers a replica. If all others are isolated, it sets a guard for the whole fleet.
WITH fleet AS (
  UPDATE fleet_state SET no_lease_ends_before = clock_timestamp() + $2::integer * interval '1 millisecond'
  WHERE NOT EXISTS (SELECT FROM replicas r WHERE NOT is_isolated(r)) AND EXISTS (SELECT FROM agent_liveness WHERE lease_expires_at IS NOT NULL)
)
INSERT INTO replicas (deaf_after_ms) VALUES ($1::integer) RETURNING id, clock_timestamp() AS read_at
