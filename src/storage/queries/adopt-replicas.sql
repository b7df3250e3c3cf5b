-- Adopts replicas that are gone, and those whose adopters are gone: this replica watches the leases of their agents
-- from now on. A guard gives their agents time for another heartbeat. No row of an agent is written.
UPDATE replicas r SET adopted_by = $1::integer,
  no_lease_ends_before = greatest(r.no_lease_ends_before, clock_timestamp() + $2::integer * interval '1 millisecond')
WHERE r.id <> $1::integer AND CASE
  WHEN r.adopted_by IS NULL THEN r.seen_at < clock_timestamp() - 2 * r.deaf_after_ms * interval '1 millisecond'
  ELSE r.adopted_by <> $1::integer AND NOT EXISTS (
    SELECT FROM replicas o
    WHERE o.id = r.adopted_by AND o.adopted_by IS NULL
      AND o.seen_at >= clock_timestamp() - 2 * o.deaf_after_ms * interval '1 millisecond'
  )
END
