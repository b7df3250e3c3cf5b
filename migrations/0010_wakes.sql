-- Wakes: a service asks one agent to start one piece of work.
SET LOCAL lock_timeout = '10s';

-- Whether the session that holds the agent, or held it last, takes wakes.
ALTER TABLE agent_liveness ADD COLUMN takes_wakes boolean NOT NULL DEFAULT false;

-- The moment at which the service has to act on a wake; null: none.
CREATE FUNCTION wake_due_at(state text, expires_at timestamptz, answer_by timestamptz, abandon_at timestamptz) RETURNS timestamptz
LANGUAGE sql IMMUTABLE
RETURN CASE state WHEN 'queued' THEN expires_at WHEN 'offered' THEN answer_by WHEN 'accepted' THEN abandon_at END;

-- One row a wake. Every change of a live wake is a transition of its agent, so it happens under the lock of the agent's
-- liveness row. The agent may be gone: there is no foreign key.
CREATE TABLE wakes (
  -- The place in the queue.
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  wake_id text COLLATE "C" NOT NULL,
  agent bigint NOT NULL,
  agent_id text COLLATE "C" NOT NULL,
  state text COLLATE "C" NOT NULL,
  reason text COLLATE "C",
  claim text COLLATE "C" NOT NULL,
  if_unavailable text COLLATE "C" NOT NULL,
  answer_within_ms integer NOT NULL,
  max_offers smallint NOT NULL,
  expires_at timestamptz NOT NULL,
  payload bytea,
  -- What makes a repetition the same request. It stays when the payload goes.
  content_hash bytea NOT NULL,
  -- The role and name of the principal that created it, as in request_ids.
  principal text COLLATE "C" NOT NULL,
  actor text COLLATE "C" NOT NULL,
  created_at timestamptz NOT NULL,
  revision bigint NOT NULL,
  offers smallint NOT NULL DEFAULT 0,
  offer_revision bigint NOT NULL DEFAULT 0,
  offered_at timestamptz,
  -- The claw of the open offer, whose limit it counts against.
  offered_on text COLLATE "C",
  answer_by timestamptz,
  accepted_at timestamptz,
  accepted_revision bigint,
  accepted_by text COLLATE "C",
  -- The agent of an accepted wake is offline: the wake is abandoned then.
  abandon_at timestamptz,
  ended_at timestamptz,
  outcome text COLLATE "C",
  note text COLLATE "C" NOT NULL DEFAULT '',
  late_outcome text COLLATE "C",
  cancel_requested_at timestamptz,
  cancel_note text COLLATE "C" NOT NULL DEFAULT '',
  CONSTRAINT wakes_wake_id_key UNIQUE (wake_id),
  CONSTRAINT wakes_wake_id_length CHECK (char_length(wake_id) BETWEEN 1 AND 128),
  CONSTRAINT wakes_state_known CHECK (
    state IN ('queued', 'offered', 'accepted', 'finished', 'declined', 'lapsed', 'expired', 'cancelled', 'abandoned')
  ),
  CONSTRAINT wakes_claim_known CHECK (claim IN ('on_call', 'busy')),
  CONSTRAINT wakes_if_unavailable_known CHECK (if_unavailable IN ('refuse', 'queue')),
  CONSTRAINT wakes_outcome_known CHECK (outcome IN ('succeeded', 'failed', 'stopped')),
  CONSTRAINT wakes_late_outcome_known CHECK (late_outcome IN ('succeeded', 'failed', 'stopped')),
  CONSTRAINT wakes_end_whole CHECK ((ended_at IS NULL) = (state IN ('queued', 'offered', 'accepted'))),
  CONSTRAINT wakes_offer_whole CHECK (state <> 'offered' OR num_nulls(answer_by, offered_at, offered_on) = 0 AND offer_revision > 0),
  CONSTRAINT wakes_acceptance_whole CHECK (num_nonnulls(accepted_at, accepted_revision, accepted_by) IN (0, 3)),
  CONSTRAINT wakes_accepted_by_a_process CHECK (state <> 'accepted' OR accepted_by IS NOT NULL),
  CONSTRAINT wakes_payload_bound CHECK (length(payload) <= 4096),
  CONSTRAINT wakes_no_payload_after_the_end CHECK (ended_at IS NULL OR payload IS NULL),
  CONSTRAINT wakes_offers_bound CHECK (offers <= max_offers AND max_offers BETWEEN 1 AND 10)
) WITH (fillfactor = 70);

-- At most one open wake of an agent.
CREATE UNIQUE INDEX wakes_open_key ON wakes (agent) WHERE state IN ('offered', 'accepted');
CREATE INDEX wakes_queued_idx ON wakes (agent, id) WHERE state = 'queued';
CREATE INDEX wakes_offers_idx ON wakes (offered_on) WHERE state = 'offered';
CREATE INDEX wakes_due_at_idx ON wakes (wake_due_at(state, expires_at, answer_by, abandon_at), id)
  WHERE state IN ('queued', 'offered', 'accepted');
CREATE INDEX wakes_agent_id_idx ON wakes (agent_id, id);
CREATE INDEX wakes_ended_at_idx ON wakes (ended_at) WHERE ended_at IS NOT NULL;

-- While a row is there and `until` is ahead, nothing is offered to the agent, or to any agent of the claw.
CREATE TABLE wake_pauses (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  agent bigint,
  agent_id text COLLATE "C",
  claw_identifier text COLLATE "C",
  since timestamptz NOT NULL,
  until timestamptz,
  note text COLLATE "C" NOT NULL,
  actor text COLLATE "C" NOT NULL,
  CONSTRAINT wake_pauses_agent_key UNIQUE (agent),
  CONSTRAINT wake_pauses_claw_identifier_key UNIQUE (claw_identifier),
  CONSTRAINT wake_pauses_one_target CHECK (num_nonnulls(agent, claw_identifier) = 1 AND num_nonnulls(agent_id, claw_identifier) = 1)
);

-- The response of a PauseWakes with a request_id.
ALTER TABLE request_ids ADD COLUMN pause_state jsonb;

-- The rate limit of offers of the whole deployment.
CREATE TABLE wake_bucket (
  singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
  tokens double precision NOT NULL DEFAULT 1e9,
  filled_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 10);
INSERT INTO wake_bucket DEFAULT VALUES;

-- Claims that the service undid a moment ago: a report of the agent that still tells of the claim is outdated.
CREATE TABLE undone_claims (
  agent bigint PRIMARY KEY,
  claim text COLLATE "C" NOT NULL,
  -- The agent knows of the claim from this revision on, and of its end from the other one on.
  offer_revision bigint NOT NULL,
  end_revision bigint NOT NULL,
  until timestamptz NOT NULL
);

-- What an agent is judged by and shown with, besides its own row: JSON, because nearly all agents have none of it. Revisions
-- are text, because JSON numbers lose digits; instants are microseconds since 1970. Read them by scalar subqueries: a join
-- would compute them for all agents.
CREATE VIEW open_wakes AS
SELECT w.agent, jsonb_build_object('wakeId', w.wake_id, 'state', w.state, 'claim', w.claim, 'ifUnavailable', w.if_unavailable,
  'offers', w.offers, 'maxOffers', w.max_offers, 'expiresAt', micros_of(w.expires_at), 'answerBy', micros_of(w.answer_by),
  'offerRevision', w.offer_revision::text, 'acceptedAt', micros_of(w.accepted_at),
  'acceptedRevision', w.accepted_revision::text, 'acceptedBy', w.accepted_by,
  'isCancelRequested', w.cancel_requested_at IS NOT NULL, 'abandonAt', micros_of(w.abandon_at)) AS open_wake
FROM wakes w WHERE w.state IN ('offered', 'accepted');

CREATE VIEW undone_claims_in_force AS
SELECT u.agent, jsonb_build_object('claim', u.claim, 'offerRevision', u.offer_revision::text,
  'endRevision', u.end_revision::text, 'until', micros_of(u.until)) AS undone_claim
FROM undone_claims u WHERE u.until > clock_timestamp();

CREATE VIEW pauses_in_force AS
SELECT p.id, p.agent, p.claw_identifier, jsonb_build_object('agentId', p.agent_id, 'clawIdentifier', p.claw_identifier,
  'since', micros_of(p.since), 'until', micros_of(p.until), 'note', p.note, 'actor', p.actor) AS pause
FROM wake_pauses p WHERE p.until IS NULL OR p.until > clock_timestamp();

-- A deletion of an agent removes the notes of its wakes, and its pause. The commit that deletes it ends its live wakes.
CREATE FUNCTION forget_wakes_of_agent() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE wakes SET note = '', cancel_note = '' WHERE agent_id = OLD.agent_id AND agent = OLD.id AND note || cancel_note <> '';
  DELETE FROM wake_pauses WHERE agent = OLD.id;
  DELETE FROM undone_claims WHERE agent = OLD.id;
  RETURN NULL;
END
$$;

CREATE TRIGGER agents_deleted AFTER DELETE ON agents FOR EACH ROW EXECUTE FUNCTION forget_wakes_of_agent();

-- The wake that changed, and the agent's open wake after the transition, which watchers see.
ALTER TABLE agent_transitions ADD COLUMN wake_id text COLLATE "C", ADD COLUMN wake_state text COLLATE "C",
  ADD COLUMN open_wake_id text COLLATE "C", ADD COLUMN open_wake_state text COLLATE "C";
ALTER TABLE agent_transitions DROP CONSTRAINT agent_transitions_cause_known;
ALTER TABLE agent_transitions ADD CONSTRAINT agent_transitions_cause_known CHECK (
  cause IN ('created', 'report', 'service', 'lease_expired', 'goodbye', 'recovery', 'moved', 'deleted', 'heartbeat',
    'wake', 'stalled', 'progressed')
) NOT VALID;

-- The change of a wake, beside the change of its agent with the same n. Values that are null stay.
CREATE TYPE wake_change AS (
  n integer,
  wake_id text,
  -- The wake that the transition names.
  named boolean,
  -- The expected state and offer; null: a new wake.
  from_state text,
  from_offer_revision bigint,
  state text,
  reason text,
  -- A new offer.
  offers boolean,
  accepted_by text,
  outcome text,
  note text,
  late_outcome text,
  cancels boolean,
  cancel_note text,
  -- 'clear', or 'lease': one lease from now.
  abandon text,
  -- The offer ended without the agent: see undone_claims. For so many milliseconds.
  undone_ms integer,
  -- Applies only if wake_due_at has passed: 'expiry', 'answer' (an outage of the agent's replica extends it) or 'abandon' (an
  -- outage of all replicas extends it).
  due text,
  -- Applies only before expires_at.
  in_time boolean,
  -- The content of a new wake.
  claim text,
  if_unavailable text,
  answer_within_ms integer,
  max_offers smallint,
  expires_at timestamptz,
  payload text,
  content_hash text,
  principal text,
  actor text
);

CREATE TYPE committed_change AS (
  n integer, outcome text, detail text, given_revision bigint, state agent_states, usr user_states
);

-- The key of the lock of a claw: offers to its agents and pauses of the claw are serialised by it.
CREATE FUNCTION wake_lock_of_claw(claw text) RETURNS bigint LANGUAGE sql IMMUTABLE
RETURN hashtextextended(claw, 7294116530218411);

-- Whether wakes of the agent or of its claw are paused.
CREATE FUNCTION wakes_paused(of_agent bigint, of_claw text) RETURNS boolean LANGUAGE sql VOLATILE
RETURN EXISTS (SELECT FROM pauses_in_force p WHERE p.agent = of_agent)
  OR EXISTS (SELECT FROM pauses_in_force p WHERE p.claw_identifier = of_claw);

-- Until when an outage extends the deadline of a wake; null: not at all. As in guarded_deadlines, a guard extends deadlines
-- that were running when it was set, and no later ones.
CREATE FUNCTION wake_guard(w wakes, due text) RETURNS timestamptz LANGUAGE sql VOLATILE
RETURN CASE due
  WHEN 'answer' THEN (
    SELECT least(w.expires_at, x.until)
    FROM (
      SELECT CASE
          WHEN r.id IS NULL THEN greatest(CASE WHEN f.guarded_at > w.offered_at THEN f.no_lease_ends_before END, unnoticed_fleet_guard())
          WHEN o.id IS NULL OR is_isolated(o) OR greatest(r.guarded_at, o.guarded_at, f.guarded_at) > w.offered_at THEN g.until
        END AS until
      FROM agent_liveness l CROSS JOIN fleet_state f
        LEFT JOIN replicas r ON r.id = l.replica_id
        LEFT JOIN replicas o ON o.id = coalesce(r.adopted_by, r.id)
        LEFT JOIN lease_guards g ON g.replica_id = r.id
      WHERE l.agent = w.agent
    ) x WHERE x.until IS NOT NULL
  )
  WHEN 'abandon' THEN (
    SELECT greatest(CASE WHEN f.guarded_at > a.status_changed_at THEN f.no_lease_ends_before END, unnoticed_fleet_guard())
    FROM fleet_state f, agents a WHERE a.id = w.agent
  )
END;

-- commit_changes, for a group with agents that have wakes. Checks the fences of the wakes under the same locks, commits
-- the members that fit, and writes their wakes and the log's columns about them.
--
-- Locks are taken in this order: liveness rows by id, agent rows by id, claws, the bucket of offers, new wakes by name,
-- then those of commit_changes.
--
-- Further outcomes: 'stale' also if a wake has changed, or if the agent may not be offered a wake; 'guarded' also if an
-- outage extends the deadline of a wake; 'limited' (detail: the limit of offers).
CREATE FUNCTION commit_with_wakes(replica integer, changes jsonb, wake_changes jsonb, offers_per_second double precision, offers_per_claw integer)
RETURNS TABLE (n integer, outcome text, detail text, given_revision bigint, state agent_states, usr user_states,
  open_wake jsonb, queued_wakes integer, undone_claim jsonb)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
  members agent_change[];
  ops wake_change[];
  ids bigint[];
  moment timestamptz;
  unfit integer[];
  offering integer[];
  guarded jsonb := '{}';
  limited jsonb := '{}';
  available double precision;
  results committed_change[];
  unconfirmed jsonb;
BEGIN
  SELECT array_agg(c), array_agg(c.id) FILTER (WHERE c.id IS NOT NULL)
  INTO members, ids FROM jsonb_populate_recordset(NULL::agent_change, changes) c;
  SELECT coalesce(array_agg(o), '{}') INTO ops FROM jsonb_populate_recordset(NULL::wake_change, wake_changes) o;

  PERFORM FROM agent_liveness l WHERE l.agent = ANY (ids) ORDER BY l.agent FOR UPDATE;
  PERFORM FROM agents a WHERE a.id = ANY (ids) ORDER BY a.id FOR UPDATE;

  -- Agents that changed since they were judged take neither places of a claw nor tokens.
  SELECT coalesce(array_agg(c.n), '{}') INTO unfit
  FROM unnest(members) c LEFT JOIN agent_liveness l ON l.agent = c.id
  WHERE c.kind <> 'create' AND (l.agent IS NULL OR l.revision <> c.expect_revision OR l.epoch <> coalesce(c.expect_epoch, l.epoch));

  SELECT array_agg(DISTINCT o.n) INTO offering FROM unnest(ops) o WHERE o.offers AND o.n <> ALL (unfit);
  IF offering IS NOT NULL THEN
    PERFORM pg_advisory_xact_lock(k.key) FROM (
      SELECT DISTINCT wake_lock_of_claw(a.claw_identifier) AS key
      FROM unnest(members) c JOIN agents a ON a.id = c.id WHERE c.n = ANY (offering) ORDER BY 1
    ) k;
    SELECT least(greatest(1, offers_per_second), b.tokens + offers_per_second * extract(epoch FROM clock_timestamp() - b.filled_at)::double precision)
    INTO available FROM wake_bucket b FOR UPDATE;
  END IF;

  -- A change of a queued wake is a transition that changes no hold: a claim that waits for its confirmation still does.
  SELECT jsonb_object_agg(a.id, a.lapses_to) INTO unconfirmed
  FROM unnest(members) c JOIN agents a ON a.id = c.id
  WHERE a.lapses_to IS NOT NULL AND c.cause = 'wake' AND c.hold = 'keep' AND c.status = a.status;

  moment := clock_timestamp();
  SELECT unfit || coalesce(array_agg(DISTINCT o.n), '{}') INTO unfit
  FROM unnest(ops) o
    JOIN unnest(members) c ON c.n = o.n
    LEFT JOIN wakes w ON w.wake_id = o.wake_id
  WHERE o.n <> ALL (unfit) AND (
    CASE WHEN o.from_state IS NULL THEN w.id IS NOT NULL
      ELSE w.id IS NULL OR w.agent <> c.id OR w.state <> o.from_state OR w.offer_revision <> o.from_offer_revision END
    OR (o.from_state IS NULL OR o.offers OR o.in_time) AND coalesce(w.expires_at, o.expires_at) <= moment
    OR o.due IS NOT NULL AND coalesce(wake_due_at(w.state, w.expires_at, w.answer_by, w.abandon_at) > moment, true)
  );

  SELECT coalesce(jsonb_object_agg(g.n, micros_of(g.until)), '{}') INTO guarded
  FROM (
    SELECT o.n, wake_guard(w, o.due) AS until
    FROM unnest(ops) o JOIN wakes w ON w.wake_id = o.wake_id
    WHERE o.due IN ('answer', 'abandon') AND o.n <> ALL (unfit)
  ) g WHERE g.until > moment;

  IF offering IS NOT NULL THEN
    SELECT unfit || coalesce(array_agg(c.n), '{}') INTO unfit
    FROM unnest(members) c JOIN agents a ON a.id = c.id JOIN agent_liveness l ON l.agent = c.id
    WHERE c.n = ANY (offering) AND c.n <> ALL (unfit) AND NOT (
      a.status = 'idle' AND l.held AND l.takes_wakes AND l.lease_expires_at > moment
      AND EXISTS (SELECT FROM replicas r WHERE r.id = l.replica_id AND r.adopted_by IS NULL)
      AND NOT EXISTS (SELECT FROM wakes w WHERE w.agent = c.id AND w.state IN ('offered', 'accepted'))
      AND NOT EXISTS (
        SELECT FROM wakes w JOIN unnest(ops) o ON o.n = c.n AND o.offers LEFT JOIN wakes own ON own.wake_id = o.wake_id
        WHERE w.agent = c.id AND w.state = 'queued' AND (own.id IS NULL OR w.id < own.id)
      )
      AND NOT wakes_paused(a.id, a.claw_identifier)
    );
    WITH asked AS MATERIALIZED (
      SELECT c.n, a.claw_identifier, row_number() OVER (PARTITION BY a.claw_identifier ORDER BY c.n) AS place
      FROM unnest(members) c JOIN agents a ON a.id = c.id
      WHERE c.n = ANY (offering) AND c.n <> ALL (unfit) AND NOT guarded ? c.n::text
    ), room AS (
      SELECT s.claw_identifier, offers_per_claw - (SELECT count(*) FROM wakes w WHERE w.offered_on = s.claw_identifier AND w.state = 'offered') AS free
      FROM (SELECT DISTINCT claw_identifier FROM asked) s
    ), placed AS (
      SELECT s.n, s.place <= r.free AS fits, row_number() OVER (PARTITION BY s.place <= r.free ORDER BY s.n) AS turn
      FROM asked s JOIN room r USING (claw_identifier)
    )
    SELECT coalesce(jsonb_object_agg(p.n, CASE WHEN p.fits THEN 'wakesPerSecond' ELSE 'offersPerClaw' END), '{}') INTO limited
    FROM placed p WHERE NOT p.fits OR p.turn > floor(available);
  END IF;

  -- Waits for another transaction that creates a wake of the same name.
  WITH created AS (
    INSERT INTO wakes (wake_id, agent, agent_id, state, claim, if_unavailable, answer_within_ms, max_offers, expires_at, payload,
      content_hash, principal, actor, created_at, revision)
    SELECT o.wake_id, a.id, a.agent_id, 'queued', o.claim, o.if_unavailable, o.answer_within_ms, o.max_offers, o.expires_at,
      decode(o.payload, 'base64'), decode(o.content_hash, 'base64'), o.principal, o.actor, moment, 0
    FROM unnest(ops) o JOIN unnest(members) c ON c.n = o.n JOIN agents a ON a.id = c.id
    WHERE o.from_state IS NULL AND o.n <> ALL (unfit) AND NOT guarded ? o.n::text AND NOT limited ? o.n::text
    ORDER BY o.wake_id
    ON CONFLICT (wake_id) DO NOTHING RETURNING wakes.wake_id
  )
  SELECT unfit || coalesce(array_agg(o.n), '{}') INTO unfit FROM unnest(ops) o
  WHERE o.from_state IS NULL AND o.n <> ALL (unfit) AND NOT guarded ? o.n::text AND NOT limited ? o.n::text
    AND NOT EXISTS (SELECT FROM created d WHERE d.wake_id = o.wake_id);

  SELECT coalesce(array_agg(r::committed_change), '{}') INTO results
  FROM commit_changes(replica, (
    SELECT jsonb_agg(m.value) FROM jsonb_array_elements(changes) m
    WHERE (m.value ->> 'n')::integer <> ALL (unfit) AND NOT guarded ? (m.value ->> 'n') AND NOT limited ? (m.value ->> 'n')
  )) r
  WHERE cardinality(unfit) + (SELECT count(*) FROM jsonb_object_keys(guarded || limited)) < jsonb_array_length(changes);
  moment := clock_timestamp();

  IF unconfirmed IS NOT NULL THEN
    UPDATE agents a SET lapses_to = unconfirmed ->> a.id::text
    FROM unnest(results) r WHERE r.outcome = 'committed' AND a.id = (r.state).id AND unconfirmed ? a.id::text;
  END IF;

  DELETE FROM wakes w USING unnest(ops) o
  WHERE w.wake_id = o.wake_id AND w.revision = 0 AND o.from_state IS NULL
    AND NOT EXISTS (SELECT FROM unnest(results) r WHERE r.n = o.n AND r.outcome = 'committed');

  UPDATE wakes w SET state = o.state, reason = o.reason, revision = r.given_revision,
    offers = w.offers + CASE WHEN o.offers THEN 1 ELSE 0 END,
    offer_revision = CASE WHEN o.offers THEN r.given_revision ELSE w.offer_revision END,
    offered_at = CASE WHEN o.offers THEN moment ELSE w.offered_at END,
    offered_on = CASE WHEN o.offers THEN (r.state).claw_identifier ELSE w.offered_on END,
    answer_by = CASE WHEN o.offers THEN least(moment + w.answer_within_ms * interval '1 millisecond', w.expires_at)
      WHEN o.state = 'offered' THEN w.answer_by END,
    accepted_at = CASE WHEN o.accepted_by IS NOT NULL THEN moment ELSE w.accepted_at END,
    accepted_revision = CASE WHEN o.accepted_by IS NOT NULL THEN r.given_revision ELSE w.accepted_revision END,
    accepted_by = coalesce(o.accepted_by, w.accepted_by),
    abandon_at = CASE WHEN o.state <> 'accepted' OR o.abandon = 'clear' THEN NULL
      WHEN o.abandon = 'lease' THEN moment + (SELECT f.lease_ms FROM fleet_state f) * interval '1 millisecond' ELSE w.abandon_at END,
    ended_at = CASE WHEN o.state IN ('queued', 'offered', 'accepted') THEN NULL ELSE coalesce(w.ended_at, moment) END,
    payload = CASE WHEN o.state IN ('queued', 'offered', 'accepted') THEN w.payload END,
    outcome = coalesce(o.outcome, w.outcome), note = coalesce(o.note, w.note),
    late_outcome = coalesce(o.late_outcome, w.late_outcome),
    cancel_requested_at = CASE WHEN o.cancels THEN moment ELSE w.cancel_requested_at END,
    cancel_note = coalesce(o.cancel_note, w.cancel_note)
  FROM unnest(ops) o JOIN unnest(results) r ON r.n = o.n AND r.outcome = 'committed'
  WHERE w.wake_id = o.wake_id;

  INSERT INTO undone_claims (agent, claim, offer_revision, end_revision, until)
  SELECT w.agent, w.claim, w.offer_revision, r.given_revision, moment + o.undone_ms * interval '1 millisecond'
  FROM unnest(ops) o JOIN unnest(results) r ON r.n = o.n AND r.outcome = 'committed' JOIN wakes w ON w.wake_id = o.wake_id
  WHERE o.undone_ms IS NOT NULL
  ON CONFLICT (agent) DO UPDATE SET claim = excluded.claim, offer_revision = excluded.offer_revision,
    end_revision = excluded.end_revision, until = excluded.until;

  IF offering IS NOT NULL THEN
    UPDATE wake_bucket SET filled_at = moment, tokens = available - (
      SELECT count(*) FROM unnest(results) r WHERE r.n = ANY (offering) AND r.outcome = 'committed'
    );
  END IF;

  -- A deletion ends all wakes of the agent with its own revision.
  IF EXISTS (SELECT FROM unnest(members) c WHERE c.kind = 'delete') THEN
    UPDATE agent_transitions t SET wake_id = w.wake_id, wake_state = CASE w.state WHEN 'accepted' THEN 'abandoned' ELSE 'cancelled' END
    FROM unnest(results) r JOIN unnest(members) c ON c.n = r.n AND c.kind = 'delete'
      CROSS JOIN LATERAL (
        SELECT w.* FROM wakes w
        WHERE w.agent_id = (r.state).agent_id AND w.agent = c.id AND w.state IN ('queued', 'offered', 'accepted')
        ORDER BY w.state = 'queued', w.id LIMIT 1
      ) w
    WHERE r.outcome = 'committed' AND t.revision = r.given_revision;
    UPDATE wakes w SET payload = NULL, note = '', cancel_note = '',
      state = CASE w.state WHEN 'accepted' THEN 'abandoned' ELSE 'cancelled' END, reason = 'deleted',
      revision = r.given_revision, answer_by = NULL, abandon_at = NULL, ended_at = moment
    FROM unnest(results) r JOIN unnest(members) c ON c.n = r.n AND c.kind = 'delete'
    WHERE r.outcome = 'committed' AND w.agent_id = (r.state).agent_id AND w.agent = c.id
      AND w.state IN ('queued', 'offered', 'accepted');
  END IF;

  UPDATE agent_transitions t SET wake_id = coalesce(o.wake_id, t.wake_id), wake_state = coalesce(o.state, t.wake_state),
    open_wake_id = w.wake_id, open_wake_state = w.state
  FROM unnest(results) r
    LEFT JOIN unnest(ops) o ON o.n = r.n AND o.named
    LEFT JOIN wakes w ON w.agent = (r.state).id AND w.state IN ('offered', 'accepted')
  WHERE t.revision = r.given_revision AND (o.n IS NOT NULL OR w.id IS NOT NULL);

  RETURN QUERY
  SELECT r.n, r.outcome, r.detail, r.given_revision, r.state, r.usr,
    (SELECT o.open_wake FROM open_wakes o WHERE o.agent = (r.state).id),
    (SELECT count(*)::integer FROM wakes w WHERE w.agent = (r.state).id AND w.state = 'queued'),
    (SELECT u.undone_claim FROM undone_claims_in_force u WHERE u.agent = (r.state).id)
  FROM unnest(results) r
  UNION ALL
  SELECT g.key::integer, 'guarded', g.value, NULL, NULL::agent_states, NULL::user_states, NULL, NULL, NULL FROM jsonb_each_text(guarded) g
  UNION ALL
  SELECT i.key::integer, 'limited', i.value, NULL, NULL::agent_states, NULL::user_states, NULL, NULL, NULL FROM jsonb_each_text(limited) i
  UNION ALL
  SELECT DISTINCT u.n, 'stale', NULL::text, NULL::bigint, NULL::agent_states, NULL::user_states, NULL::jsonb, NULL::integer, NULL::jsonb FROM unnest(unfit) u (n)
  WHERE NOT guarded ? u.n::text AND NOT limited ? u.n::text;
END
$$;
