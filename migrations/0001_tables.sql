-- Users and agents. Names are compared byte for byte ("C"), so no change of a locale can reorder an index.
CREATE TABLE users (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  username text COLLATE "C" NOT NULL,
  email text COLLATE "C",
  display_name text NOT NULL DEFAULT '',
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT users_username_key UNIQUE (username),
  CONSTRAINT users_email_key UNIQUE (email),
  CONSTRAINT users_username_length CHECK (char_length(username) BETWEEN 1 AND 128),
  CONSTRAINT users_email_length CHECK (char_length(email) BETWEEN 3 AND 254),
  CONSTRAINT users_display_name_length CHECK (char_length(display_name) <= 256)
);

-- What changes with transitions, and the identity. Written by commit_changes alone. Half-full pages: a claw's agents share
-- pages and come and go together, and each finds room on its page, so that no index has to be written for it.
CREATE TABLE agents (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  user_id bigint NOT NULL,
  agent_id text COLLATE "C" NOT NULL,
  claw_identifier text COLLATE "C" NOT NULL,
  status text COLLATE "C" NOT NULL DEFAULT 'idle',
  exhausted_at timestamptz,
  recovery_at timestamptz,
  exhaust_reason text COLLATE "C",
  created_at timestamptz NOT NULL,
  status_changed_at timestamptz NOT NULL,
  revision bigint NOT NULL,
  -- How often in a row the server chose how long an exhaustion lasts, and when the agent last began or ended one.
  backoff_steps smallint NOT NULL DEFAULT 0,
  backoff_at timestamptz,
  -- What a service set at hold_revision stands until hold_until against reports that do not know of it.
  hold_revision bigint,
  hold_until timestamptz,
  CONSTRAINT agents_user_id_key UNIQUE (user_id),
  CONSTRAINT agents_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id),
  CONSTRAINT agents_agent_id_key UNIQUE (agent_id),
  CONSTRAINT agents_agent_id_length CHECK (char_length(agent_id) BETWEEN 1 AND 128),
  CONSTRAINT agents_claw_identifier_length CHECK (char_length(claw_identifier) BETWEEN 1 AND 128),
  CONSTRAINT agents_status_known CHECK (status IN ('idle', 'on_call', 'busy', 'exhausted', 'offline')),
  CONSTRAINT agents_exhaust_reason_known CHECK (exhaust_reason IN ('rate_limit', 'billing')),
  CONSTRAINT agents_exhaustion_whole CHECK (num_nonnulls(exhausted_at, recovery_at, exhaust_reason) IN (0, 3)),
  CONSTRAINT agents_exhaustion_fits_status CHECK (
    CASE status WHEN 'exhausted' THEN exhaust_reason IS NOT NULL WHEN 'offline' THEN true ELSE exhaust_reason IS NULL END
  ),
  CONSTRAINT agents_hold_whole CHECK (num_nonnulls(hold_revision, hold_until) IN (0, 2))
) WITH (fillfactor = 50);

CREATE INDEX agents_claw_identifier_idx ON agents (claw_identifier, id);
CREATE INDEX agents_recovery_at_idx ON agents (recovery_at) WHERE recovery_at IS NOT NULL;

-- A replica is one process of this service. Its row says when it last listened and wrote. While it did not, nobody heard
-- its agents, and that does not count against them: see lease_guards.
CREATE TABLE replicas (
  id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  -- Silent for longer than this, it is deaf: shorter than two heartbeat intervals, which every lease has left.
  deaf_after_ms integer NOT NULL,
  -- It is gone, and that one watches the leases of its agents, which keep its number until they beat elsewhere.
  adopted_by integer,
  -- It was deaf: its agents have until then to be heard again.
  no_lease_ends_before timestamptz
) WITH (fillfactor = 50);

-- What is true of the whole fleet: one row.
CREATE TABLE fleet_state (
  singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
  -- All replicas were deaf.
  no_lease_ends_before timestamptz,
  -- The census, some seconds old: what a mass silence is measured by. And the pace that it led to.
  agents bigint NOT NULL DEFAULT 0,
  claws bigint NOT NULL DEFAULT 0,
  interval_ms bigint NOT NULL DEFAULT 10000,
  lease_ms bigint NOT NULL DEFAULT 30000,
  -- The brake: since when leases end at brake_rate agents a second only, by a token bucket.
  brake_engaged_at timestamptz,
  brake_rate double precision NOT NULL DEFAULT 0,
  brake_tokens double precision NOT NULL DEFAULT 0,
  brake_filled_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  -- How many agents it holds back, a second old.
  brake_held_back bigint NOT NULL DEFAULT 0,
  -- What it holds back is asked about again at a rate that is its own, not at one that follows from how many it holds
  -- back: the moment that was given last.
  brake_next_ask timestamptz NOT NULL DEFAULT clock_timestamp(),
  -- Whoever was given a moment need not wait for it once the brake was released, which others may miss who look each
  -- second: it may be engaged again by then.
  brake_released_at timestamptz
) WITH (fillfactor = 10);

INSERT INTO fleet_state DEFAULT VALUES;

-- A claw of which nothing was heard any more: all its leases that end together are one event.
CREATE TABLE claw_incidents (
  claw_identifier text COLLATE "C" PRIMARY KEY,
  incident_id text COLLATE "C" NOT NULL,
  began_at timestamptz NOT NULL,
  last_at timestamptz NOT NULL,
  -- When the first of its leases ended: not at once where the brake held it back. Null until then.
  ended_at timestamptz
) WITH (fillfactor = 50);

CREATE INDEX claw_incidents_began_at_idx ON claw_incidents (began_at);

-- Fencing tokens: one sequence, so that no epoch is ever given twice.
CREATE SEQUENCE agent_epochs AS bigint;

-- What every heartbeat writes. Narrow, half-full pages and no index on a column that beats change: so each update is
-- heap-only (HOT), and dead versions are pruned as pages are read.
CREATE TABLE agent_liveness (
  agent bigint PRIMARY KEY REFERENCES agents (id),
  -- Written by every transition of the agent: a beat applies only to the revision that it was judged by.
  revision bigint NOT NULL,
  epoch bigint NOT NULL,
  replica_id integer,
  -- Whether a session holds the agent, and which process of a claw that session belongs to.
  held boolean NOT NULL DEFAULT false,
  instance uuid,
  generation numeric(20, 0) NOT NULL DEFAULT 0,
  last_heartbeat timestamptz,
  -- Null while offline.
  lease_expires_at timestamptz
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

-- The agents of a replica that is gone are read page by page.
CREATE INDEX agent_liveness_replica_id_idx ON agent_liveness (replica_id, agent);

-- An agent with its liveness: what is read, judged and answered.
CREATE VIEW agent_states AS
SELECT
  a.id, a.user_id, a.agent_id, a.claw_identifier, a.status, a.exhausted_at, a.recovery_at, a.exhaust_reason,
  a.created_at, a.status_changed_at, a.revision, a.backoff_steps, a.backoff_at, a.hold_revision, a.hold_until,
  l.epoch, l.held, l.last_heartbeat, l.lease_expires_at, l.replica_id,
  -- Its lease has ended, and the brake holds it back.
  CASE WHEN l.lease_expires_at <= clock_timestamp() THEN (
    SELECT greatest(l.lease_expires_at, f.brake_engaged_at) FROM fleet_state f WHERE f.brake_engaged_at IS NOT NULL
  ) END AS suspect_since
FROM agents a JOIN agent_liveness l ON l.agent = a.id;

-- Before which moment no lease of a replica's agents ends, whatever its own end. A replica that is deaf and has not
-- noticed it yet, since it is still deaf, is asked about again after a while.
CREATE VIEW lease_guards AS
SELECT
  r.id AS replica_id,
  greatest(
    r.no_lease_ends_before,
    CASE WHEN r.adopted_by IS NULL AND r.seen_at < clock_timestamp() - r.deaf_after_ms * interval '1 millisecond'
      THEN clock_timestamp() + r.deaf_after_ms * interval '1 millisecond' END
  ) AS until
FROM replicas r;

CREATE VIEW user_states AS
SELECT u.id, u.username, u.email, u.display_name, u.created_at, a.agent_id
FROM users u LEFT JOIN agents a ON a.user_id = u.id;

-- Answers of mutations that carried a request_id, so that a repetition gets the first answer again.
CREATE TABLE request_ids (
  request_id text COLLATE "C" PRIMARY KEY,
  -- Method and content: the same id with another fingerprint is another request.
  fingerprint text COLLATE "C" NOT NULL,
  agent_state jsonb,
  user_state jsonb,
  revision bigint,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT request_ids_request_id_length CHECK (char_length(request_id) BETWEEN 1 AND 64)
);

CREATE INDEX request_ids_created_at_idx ON request_ids (created_at);
