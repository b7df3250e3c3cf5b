-- The pace in force, by which all replicas tell a claw that is silent from one that is late.
UPDATE fleet_state SET interval_ms = $1::bigint, lease_ms = $2::bigint
