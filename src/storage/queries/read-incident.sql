-- The newest incident of a claw, as it began, and how many agents went offline with it up to now.
SELECT i.incident_id, i.claw_identifier, i.since, i.silent_agents, i.last_heartbeat, i.peer,
  (SELECT count(DISTINCT t.agent) FROM agent_transitions t
   WHERE t.incident_id = i.incident_id AND t.revision > i.after_revision) AS agents
FROM incidents i
WHERE i.claw_identifier = $1::text
ORDER BY i.number DESC LIMIT 1
