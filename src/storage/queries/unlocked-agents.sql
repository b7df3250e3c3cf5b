-- Those of these agents whose rows nobody has locked at this moment. Locks them for no longer than the statement.
SELECT a.agent_id
FROM agent_liveness l JOIN agents a ON a.id = l.agent
WHERE a.agent_id = ANY ($1::text[])
FOR UPDATE SKIP LOCKED
