-- The current state of agents by agent_id.
SELECT s.*,
  (SELECT o.open_wake FROM open_wakes o WHERE o.agent = s.id) AS open_wake,
  (SELECT p.pause FROM pauses_in_force p WHERE p.agent = s.id OR p.claw_identifier = s.claw_identifier ORDER BY p.agent LIMIT 1) AS pause
FROM agent_states s WHERE s.agent_id = ANY ($1::text[])
