-- The next transitions after a revision, and in the same snapshot the range of the log: a short page means that there
-- are no others up to `newest`. Without transitions there is one row that has only the range.
SELECT c.revision AS newest, c.oldest, g.gaps, b.history_break, t.*
FROM revision_counter c
CROSS JOIN history_break() b (history_break)
CROSS JOIN (
  -- Each gap separately, because revisions between two gaps are not lost. As text, because JSON numbers lose digits.
  SELECT jsonb_agg(jsonb_build_array(from_revision::text, to_revision::text) ORDER BY to_revision) AS gaps
  FROM revision_jumps WHERE to_revision > $1::bigint
) g
LEFT JOIN LATERAL (
  SELECT * FROM agent_transitions l
  -- Compare the counter first, so that an idle poll opens no partition.
  WHERE c.revision > $1::bigint AND l.revision > $1::bigint
  ORDER BY l.revision LIMIT $2::integer
) t ON true
ORDER BY t.revision
