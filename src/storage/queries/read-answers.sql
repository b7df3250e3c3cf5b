-- First answers of requests that may be repetitions.
SELECT
  r.request_id, r.fingerprint, r.revision AS answer_revision,
  (r.agent_state IS NOT NULL) AS has_agent, (r.user_state IS NOT NULL) AS has_user,
  a.*,
  u.id AS usr_id, u.username AS usr_username, u.email AS usr_email, u.display_name AS usr_display_name,
  u.created_at AS usr_created_at, u.agent_id AS usr_agent_id
FROM request_ids r,
  jsonb_populate_record(NULL::agent_states, coalesce(r.agent_state, '{}')) a,
  jsonb_populate_record(NULL::user_states, coalesce(r.user_state, '{}')) u
WHERE r.request_id = ANY ($1::text[]) AND r.created_at > clock_timestamp() - interval '24 hours'
