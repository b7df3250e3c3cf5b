-- A page of incidents, the newest first: of one claw (null: of any), and for a caller with a scope, those of its agents
-- (null: of any). Counts come from the log. An agent may go offline twice in one incident.
SELECT i.number, i.incident_id, i.claw_identifier, i.since, i.last_heartbeat, t.agents, t.agents_back, t.ended_at
FROM incidents i
CROSS JOIN LATERAL (
  SELECT count(DISTINCT t.agent) AS agents, count(DISTINCT t.agent) FILTER (WHERE b.revision IS NOT NULL) AS agents_back,
    min(b.occurred_at) FILTER (WHERE b.to_claw_identifier = i.claw_identifier) AS ended_at
  FROM agent_transitions t
  LEFT JOIN LATERAL (
    SELECT r.revision, r.occurred_at, r.to_claw_identifier FROM agent_transitions r
    WHERE r.agent_id = t.agent_id AND r.agent = t.agent AND r.revision > t.revision
      AND r.from_status = 'offline' AND r.to_status <> 'offline'
    ORDER BY r.revision LIMIT 1
  ) b ON true
  WHERE t.incident_id = i.incident_id AND t.revision > i.after_revision
    AND ($4::text[] IS NULL OR t.agent_id = ANY ($4::text[]))
) t
WHERE i.number < $1::bigint AND ($2::text IS NULL OR i.claw_identifier = $2::text)
  AND i.after_revision >= (SELECT oldest FROM revision_counter)
  AND ($4::text[] IS NULL OR i.incident_id IN (
    SELECT o.incident_id FROM agent_transitions o WHERE o.agent_id = ANY ($4::text[]) AND o.incident_id IS NOT NULL
  ))
ORDER BY i.number DESC
LIMIT $3::integer
