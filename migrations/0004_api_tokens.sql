-- Tokens that this service issued. Of the secret there is a hash alone.
CREATE TABLE api_tokens (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  -- The public part of the token, by which it is found.
  key_id text COLLATE "C" NOT NULL,
  -- SHA-256: the secret has more than 250 random bits, so that nothing slower is needed.
  secret_hash bytea NOT NULL,
  principal text COLLATE "C" NOT NULL,
  role text COLLATE "C" NOT NULL,
  agent_ids text[] COLLATE "C",
  claw_identifier text COLLATE "C",
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  created_by text COLLATE "C" NOT NULL,
  expires_at timestamptz NOT NULL,
  revoked_at timestamptz,
  revoked_by text COLLATE "C",
  -- Which revocation it was, in the order of their commits: replicas ask for those that they have not heard of.
  revocation bigint,
  CONSTRAINT api_tokens_key_id_key UNIQUE (key_id),
  CONSTRAINT api_tokens_secret_hash_length CHECK (octet_length(secret_hash) = 32),
  CONSTRAINT api_tokens_principal_length CHECK (char_length(principal) BETWEEN 1 AND 128),
  CONSTRAINT api_tokens_role_known CHECK (role IN ('agent', 'service', 'admin', 'viewer')),
  CONSTRAINT api_tokens_scope CHECK (num_nonnulls(agent_ids, claw_identifier) = CASE role WHEN 'agent' THEN 1 ELSE 0 END),
  CONSTRAINT api_tokens_agent_ids_some CHECK (cardinality(agent_ids) BETWEEN 1 AND 1000),
  CONSTRAINT api_tokens_revocation_whole CHECK (num_nonnulls(revoked_at, revoked_by, revocation) IN (0, 3))
);

CREATE INDEX api_tokens_principal_idx ON api_tokens (principal, id);
CREATE UNIQUE INDEX api_tokens_revocation_idx ON api_tokens (revocation) WHERE revocation IS NOT NULL;

-- One row. Whoever issues or revokes holds it until the commit: so revocations are numbered in commit order, and nobody
-- issues a third token beside a second one.
CREATE TABLE api_token_counter (
  singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
  revocation bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 10);

INSERT INTO api_token_counter DEFAULT VALUES;

-- The token of an answer, for its repetitions.
ALTER TABLE request_ids ADD COLUMN token_key_id text COLLATE "C";

-- A request_id that is used again after its 24 hours answers nothing of the former request.
CREATE OR REPLACE FUNCTION claim_request_id(id text, content text) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  INSERT INTO request_ids (request_id, fingerprint) VALUES (id, content)
  ON CONFLICT (request_id) DO UPDATE SET fingerprint = excluded.fingerprint, agent_state = NULL, user_state = NULL,
    revision = NULL, token_key_id = NULL, created_at = clock_timestamp()
  WHERE request_ids.created_at <= clock_timestamp() - interval '24 hours';
  RETURN FOUND;
END
$$;
