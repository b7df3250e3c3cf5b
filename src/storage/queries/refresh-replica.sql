-- Says that the replica listens, and notices in the same statement that it did not for a while: then the leases of its
-- agents, or of the whole fleet where nobody else listened either, do not end before the agents could be heard again.
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
