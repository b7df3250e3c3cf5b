-- Refreshes the row of a replica, and detects in the same statement whether the replica was isolated since the last
-- refresh. Then it sets a guard for the replica's agents, or for the whole fleet if all replicas were isolated.
WITH before AS MATERIALIZED (
  SELECT is_isolated(r) AS isolated
  FROM replicas r WHERE r.id = $1::integer FOR UPDATE
), state AS MATERIALIZED (
  SELECT coalesce((SELECT isolated FROM before), true) AS isolated, clock_timestamp() + $3::integer * interval '1 millisecond' AS until
), fleet AS (
  UPDATE fleet_state SET no_lease_ends_before = s.until FROM state s
  WHERE s.isolated AND NOT EXISTS (SELECT FROM replicas r WHERE r.id <> $1::integer AND NOT is_isolated(r))
), me AS (
  INSERT INTO replicas AS r (id, deaf_after_ms, no_lease_ends_before) OVERRIDING SYSTEM VALUE
  SELECT $1::integer, $2::integer, s.until FROM state s
  ON CONFLICT (id) DO UPDATE SET seen_at = clock_timestamp(), adopted_by = NULL, deaf_after_ms = excluded.deaf_after_ms,
    no_lease_ends_before = CASE WHEN (SELECT isolated FROM state) THEN excluded.no_lease_ends_before ELSE r.no_lease_ends_before END
)
SELECT isolated FROM state
