-- Records the current pace. All replicas use it to tell a silent claw from a late one.
UPDATE fleet_state SET interval_ms = $1::bigint, lease_ms = $2::bigint
