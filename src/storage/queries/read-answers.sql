-- The stored responses of requests that may be repetitions: those of the principal, and those that release 0.1 stored
-- without a principal (migration 0007).
SELECT
  q.principal, r.request_id, r.fingerprint, r.revision AS answer_revision,
  (r.agent_state IS NOT NULL) AS has_agent, (r.user_state IS NOT NULL) AS has_user,
  a.*,
  u.id AS usr_id, u.username AS usr_username, u.email AS usr_email, u.display_name AS usr_display_name,
  u.created_at AS usr_created_at, u.agent_id AS usr_agent_id
FROM unnest($1::text[], $2::text[]) q (principal, request_id)
  JOIN request_ids r ON r.request_id = q.request_id AND r.principal IN (q.principal, ''),
  jsonb_populate_record(NULL::agent_states, coalesce(r.agent_state, '{}')) a,
  jsonb_populate_record(NULL::user_states, coalesce(r.user_state, '{}')) u
WHERE r.created_at > clock_timestamp() - interval '24 hours'
ORDER BY r.principal
