-- The agents whose rows no other transaction has locked. Locks them only during the statement.
SELECT a.agent_id
FROM agent_liveness l JOIN agents a ON a.id = l.agent
WHERE a.agent_id = ANY ($1::text[])
FOR UPDATE SKIP LOCKED
