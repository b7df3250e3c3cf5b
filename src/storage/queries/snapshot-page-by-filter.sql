-- The next agents by id that pass a filter (null: any), and the revision of the snapshot: one statement is one
-- snapshot. Without agents there is one row that has only the revision. Watchers do not see leases and epochs, which
-- are in another table. A join with it would read it from its first row for each page.
SELECT c.revision AS snapshot_revision, s.*
FROM revision_counter c
LEFT JOIN (
  SELECT a.id, a.user_id, a.agent_id, a.claw_identifier, a.status, a.exhausted_at, a.recovery_at, a.exhaust_reason,
    a.created_at, a.status_changed_at, a.revision, w.wake_id AS open_wake_id, w.state AS open_wake_state
  FROM agents a LEFT JOIN wakes w ON w.agent = a.id AND w.state IN ('offered', 'accepted')
  WHERE a.id > $1::bigint
    AND ($2::text[] IS NULL OR a.agent_id = ANY ($2::text[]))
    AND ($3::bigint[] IS NULL OR a.user_id = ANY ($3::bigint[]))
    AND ($4::text[] IS NULL OR a.claw_identifier = ANY ($4::text[]))
    AND ($5::text[] IS NULL OR a.status = ANY ($5::text[]))
  ORDER BY a.id LIMIT $6::integer
) s ON true
ORDER BY s.id
