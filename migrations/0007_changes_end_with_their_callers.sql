-- A change ends with its caller's deadline, and a request_id belongs to the principal that sent it.

-- The primary key is built again, which takes about a second for a million rows. If the table stays in use for longer
-- than this timeout, the next start tries again.
SET LOCAL lock_timeout = '5s';

ALTER TYPE agent_change ADD ATTRIBUTE not_after timestamptz, ADD ATTRIBUTE principal text;

-- The role and name of the principal that sent the request (`service:calendar`). Empty: release 0.1 stored the response
-- without a principal. Each principal gets such a response for 24 hours, as in 0.1.
ALTER TABLE request_ids ADD COLUMN principal text COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE request_ids DROP CONSTRAINT request_ids_pkey;
ALTER TABLE request_ids ADD CONSTRAINT request_ids_pkey PRIMARY KEY (request_id, principal);

-- Claims a principal's request_id for this transaction; an expired one counts as new. False: it was used before. Waits
-- for a concurrent claim. The empty principal is release 0.1: its claims apply to all principals.
CREATE FUNCTION claim_request_id(caller text, id text, content text) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  INSERT INTO request_ids (principal, request_id, fingerprint)
  SELECT caller, id, content
  WHERE NOT EXISTS (
    SELECT FROM request_ids r
    WHERE r.request_id = id AND r.principal <> caller AND (r.principal = '' OR caller = '')
      AND r.created_at > clock_timestamp() - interval '24 hours'
  )
  ON CONFLICT (request_id, principal) DO UPDATE SET fingerprint = excluded.fingerprint, agent_state = NULL, user_state = NULL,
    revision = NULL, token_key_id = NULL, created_at = clock_timestamp()
  WHERE request_ids.created_at <= clock_timestamp() - interval '24 hours';
  RETURN FOUND;
END
$$;

-- Release 0.1 calls this function during the upgrade.
CREATE OR REPLACE FUNCTION claim_request_id(id text, content text) RETURNS boolean LANGUAGE sql VOLATILE
RETURN claim_request_id('', id, content);

-- The last statement of a transaction with several round trips. Raises an exception if the deadline has passed.
-- Otherwise the server ends the transaction if the COMMIT does not arrive before the deadline.
CREATE FUNCTION commit_before(deadline timestamptz) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  left_ms bigint := floor(extract(epoch FROM deadline - clock_timestamp()) * 1000);
BEGIN
  IF left_ms <= 0 THEN
    -- An SQLSTATE class of its own, so that no other error is mistaken for it.
    RAISE EXCEPTION 'the deadline of this change has passed' USING ERRCODE = 'HF001';
  END IF;
  PERFORM set_config('idle_in_transaction_session_timeout',
      least(left_ms, (SELECT nullif(setting::bigint, 0) FROM pg_settings WHERE name = 'idle_in_transaction_session_timeout'))::text,
      true);
END
$$;

-- Undoes the writes for dropped members: their request_ids and the rows that they created.
CREATE FUNCTION undo_members(members agent_change[], dropped integer[]) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  DELETE FROM request_ids r USING unnest(members) c
  WHERE c.n = ANY (dropped) AND r.request_id = c.request_id AND r.principal = coalesce(c.principal, '');
  DELETE FROM agent_liveness l USING unnest(members) c WHERE c.n = ANY (dropped) AND c.kind = 'create' AND l.agent = c.id;
  DELETE FROM agents a USING unnest(members) c WHERE c.n = ANY (dropped) AND c.kind = 'create' AND a.id = c.id;
  DELETE FROM users u USING unnest(members) c
  WHERE c.n = ANY (dropped) AND c.kind = 'create' AND c.username IS NOT NULL AND u.id = c.user_id;
END
$$;

-- Commits a group of changes of different agents in one round trip. With several round trips, a replica that freezes
-- with the lock of the counter would stop all others. VOLATILE, so that each statement sees what was committed before
-- its locks.
--
-- Locks are always taken in this order: liveness rows by id, agent rows by id, the fleet, request ids, names, the
-- counter. If two groups still deadlock (a name of one is the agent_id of the other), one is repeated.
--
-- Outcomes: 'committed' (detail names a claw that fell silent by it); 'stale' (judge again); 'late' (not_after has
-- passed, so the caller no longer waits); 'conflict' (detail names the constraint); 'guarded' (the lease must not
-- expire yet; detail is when to ask again, in microseconds since 1970).
CREATE OR REPLACE FUNCTION commit_changes(replica integer, changes jsonb)
RETURNS TABLE (n integer, outcome text, detail text, given_revision bigint, state agent_states, usr user_states)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
  members agent_change[];
  ids bigint[];
  fit integer[];
  refused_n integer[] := '{}';
  refused_constraint text[] := '{}';
  violated text;
  moment timestamptz;
  transitions bigint;
  counter revision_counter;
  place integer;
  ending integer[];
  guarded jsonb := '{}';
  incidents jsonb := '{}';
  first_deadline timestamptz;
  late integer[] := '{}';
BEGIN
  SELECT array_agg(c), array_agg(c.id) FILTER (WHERE c.id IS NOT NULL), min(c.not_after)
  INTO members, ids, first_deadline FROM jsonb_populate_recordset(NULL::agent_change, changes) c;

  PERFORM FROM agent_liveness l WHERE l.agent = ANY (ids) ORDER BY l.agent FOR UPDATE;
  PERFORM FROM agents a WHERE a.id = ANY (ids) ORDER BY a.id FOR UPDATE;

  moment := clock_timestamp();
  SELECT coalesce(array_agg(c.n), '{}') INTO fit
  FROM unnest(members) c JOIN agent_liveness l ON l.agent = c.id
  WHERE l.revision = c.expect_revision
    AND (c.expect_epoch IS NULL OR l.epoch = c.expect_epoch)
    AND (NOT coalesce(c.lease_ended, false) OR l.lease_expires_at <= moment)
    AND (c.not_before IS NULL OR c.not_before <= moment)
    AND (c.not_after IS NULL OR c.not_after > moment);

  -- Judges expired leases: guards and the brake may delay them.
  SELECT array_agg(c.n) INTO ending FROM unnest(members) c WHERE c.n = ANY (fit) AND c.lease_ended;
  IF ending IS NOT NULL THEN
    SELECT j.guarded, j.incidents INTO guarded, incidents FROM judge_lease_ends(members, ending, moment) j;
    SELECT coalesce(array_agg(f.n), '{}') INTO fit FROM unnest(fit) f (n) WHERE NOT guarded ? f.n::text;
  END IF;

  -- A request that another replica or member is committing at this moment is stale: judged again, it finds the stored
  -- response.
  WITH asked AS MATERIALIZED (
    SELECT c.n, c.principal, c.request_id, c.fingerprint FROM unnest(members) c WHERE c.n = ANY (fit)
    ORDER BY c.request_id, c.principal, c.n
  )
  SELECT coalesce(array_agg(a.n), '{}') INTO fit FROM asked a
  WHERE a.request_id IS NULL OR claim_request_id(coalesce(a.principal, ''), a.request_id, a.fingerprint);

  FOR place IN
    -- Ordered by names: otherwise two groups that create the same users could deadlock.
    SELECT p FROM generate_subscripts(members, 1) p WHERE members[p].kind = 'create' ORDER BY members[p].username, members[p].agent_id
  LOOP
    DECLARE
      c agent_change := members[place];
    BEGIN
      CONTINUE WHEN c.not_after <= moment;
      CONTINUE WHEN c.request_id IS NOT NULL AND NOT claim_request_id(coalesce(c.principal, ''), c.request_id, c.fingerprint);
      IF c.username IS NOT NULL THEN
        INSERT INTO users (username, email, display_name) VALUES (c.username, c.email, c.display_name)
        RETURNING users.id INTO c.user_id;
      END IF;
      INSERT INTO agents (user_id, agent_id, claw_identifier, status, created_at, status_changed_at, revision)
      VALUES (c.user_id, c.agent_id, c.claw_identifier, 'idle', moment, moment, 0) RETURNING agents.id INTO c.id;
      INSERT INTO agent_liveness (agent, revision, epoch, replica_id) VALUES (c.id, 0, nextval('agent_epochs'), replica);
      members[place] := c;
      fit := fit || c.n;
    EXCEPTION WHEN unique_violation OR foreign_key_violation THEN
      GET STACKED DIAGNOSTICS violated = CONSTRAINT_NAME;
      refused_n := refused_n || c.n;
      refused_constraint := refused_constraint || violated;
    END;
  END LOOP;

  SELECT count(*) INTO transitions FROM unnest(members) c WHERE c.n = ANY (fit) AND NOT c.quiet;
  IF transitions > 0 THEN
    counter := take_counter();
    IF counter.revision + transitions + revisions_per_partition() >= counter.partitioned_until THEN
      -- Starting at the next revision: a group may begin in one partition and end in the next.
      counter.partitioned_until := add_transition_partitions(counter.revision + 1);
    END IF;
    -- Read the clock after the counter is locked, so that times ascend with revisions.
    moment := clock_timestamp();
  END IF;

  -- The group holds all its locks now, and nothing waits before the commit. Only late members are dropped: otherwise
  -- callers with short deadlines could fail the whole group.
  IF first_deadline <= clock_timestamp() THEN
    SELECT coalesce(array_agg(c.n), '{}') INTO late FROM unnest(members) c WHERE c.not_after <= clock_timestamp();
    PERFORM undo_members(members, (SELECT array_agg(f.n) FROM unnest(fit) f (n) WHERE f.n = ANY (late)));
    SELECT coalesce(array_agg(f.n), '{}') INTO fit FROM unnest(fit) f (n) WHERE f.n <> ALL (late);
    SELECT count(*) INTO transitions FROM unnest(members) c WHERE c.n = ANY (fit) AND NOT c.quiet;
  END IF;

  IF transitions > 0 THEN
    UPDATE revision_counter SET revision = counter.revision + transitions, partitioned_until = counter.partitioned_until;
  END IF;

  RETURN QUERY
  WITH fitting AS MATERIALIZED (
    SELECT c.*, CASE WHEN NOT c.quiet THEN counter.revision + row_number() OVER (PARTITION BY c.quiet ORDER BY c.n) END AS given
    FROM unnest(members) c WHERE c.n = ANY (fit)
  ), after AS MATERIALIZED (
    SELECT f.n, f.kind, f.cause, f.actor, f.request_id, incidents -> f.n::text ->> 'id' AS incident_id, f.given, f.quiet, f.lease, f.lease_ms, f.heartbeat, f.held, f.new_epoch,
      f.delete_user, b.id, b.user_id, b.agent_id, b.created_at, b.revision AS previous_revision,
      b.status AS from_status, b.claw_identifier AS from_claw_identifier,
      CASE f.kind WHEN 'update' THEN f.status ELSE b.status END AS status,
      coalesce(f.claw_identifier, b.claw_identifier) AS claw_identifier,
      CASE WHEN f.status <> b.status THEN moment ELSE b.status_changed_at END AS status_changed_at,
      CASE f.exhaustion WHEN 'keep' THEN b.exhaust_reason WHEN 'set' THEN f.exhaust_reason END AS exhaust_reason,
      CASE WHEN f.exhaustion = 'keep' OR f.exhaustion = 'set' AND f.keep_exhausted_at THEN b.exhausted_at
        WHEN f.exhaustion = 'set' THEN moment END AS exhausted_at,
      CASE f.exhaustion WHEN 'keep' THEN b.recovery_at
        WHEN 'set' THEN coalesce(f.recovery_at, moment + f.recovery_after_ms * interval '1 millisecond') END AS recovery_at,
      coalesce(f.backoff_steps, b.backoff_steps) AS backoff_steps,
      CASE f.exhaustion WHEN 'keep' THEN b.backoff_at ELSE moment END AS backoff_at,
      f.hold, f.hold_ms, b.hold_revision, b.hold_until
    FROM fitting f JOIN agents b ON b.id = f.id
  ), logged AS (
    INSERT INTO agent_transitions
    SELECT a.given, a.id, a.agent_id, a.user_id,
      CASE WHEN a.kind <> 'create' THEN a.from_status END, CASE WHEN a.kind <> 'delete' THEN a.status END,
      CASE WHEN a.kind <> 'create' THEN a.from_claw_identifier END, CASE WHEN a.kind <> 'delete' THEN a.claw_identifier END,
      a.cause, a.actor, moment, a.request_id, a.incident_id, CASE WHEN a.kind <> 'create' THEN a.previous_revision END,
      a.exhausted_at, a.recovery_at, a.exhaust_reason, a.created_at, a.status_changed_at
    FROM after a WHERE NOT a.quiet
  ), changed AS (
    UPDATE agents SET status = a.status, claw_identifier = a.claw_identifier, status_changed_at = a.status_changed_at,
      exhaust_reason = a.exhaust_reason, exhausted_at = a.exhausted_at, recovery_at = a.recovery_at,
      backoff_steps = a.backoff_steps, backoff_at = a.backoff_at, revision = coalesce(a.given, agents.revision),
      hold_revision = CASE a.hold WHEN 'keep' THEN a.hold_revision WHEN 'set' THEN a.given END,
      hold_until = CASE a.hold WHEN 'keep' THEN a.hold_until
        WHEN 'set' THEN coalesce(moment + a.hold_ms * interval '1 millisecond', a.recovery_at) END
    FROM after a WHERE agents.id = a.id AND a.kind <> 'delete' AND (NOT a.quiet OR a.hold <> 'keep')
    RETURNING agents.*
  ), kept_alive AS (
    UPDATE agent_liveness l SET revision = coalesce(a.given, l.revision),
      last_heartbeat = CASE WHEN a.heartbeat THEN moment ELSE l.last_heartbeat END,
      lease_expires_at = CASE a.lease WHEN 'keep' THEN l.lease_expires_at
        WHEN 'grant' THEN moment + a.lease_ms * interval '1 millisecond' END,
      held = coalesce(a.held, l.held),
      epoch = CASE WHEN a.new_epoch THEN nextval('agent_epochs') ELSE l.epoch END,
      -- The replica that ends a session or brings an agent back watches its lease.
      replica_id = CASE WHEN a.lease = 'end' THEN NULL WHEN a.new_epoch OR a.lease = 'grant' AND a.from_status = 'offline' THEN replica ELSE l.replica_id END
    FROM after a WHERE l.agent = a.id AND a.kind <> 'delete'
    RETURNING l.*
  )
  SELECT a.n, 'committed', CASE WHEN incidents -> a.n::text ->> 'new' = 'true' THEN a.claw_identifier END, a.given,
    ROW(a.id, a.user_id, a.agent_id, a.claw_identifier, a.status, a.exhausted_at, a.recovery_at, a.exhaust_reason, a.created_at,
      a.status_changed_at, coalesce(a.given, a.previous_revision), a.backoff_steps, a.backoff_at,
      coalesce(g.hold_revision, CASE WHEN g.id IS NULL THEN a.hold_revision END),
      coalesce(g.hold_until, CASE WHEN g.id IS NULL THEN a.hold_until END),
      coalesce(k.epoch, l.epoch), coalesce(k.held, l.held), coalesce(k.last_heartbeat, l.last_heartbeat),
      coalesce(k.lease_expires_at, l.lease_expires_at), coalesce(k.replica_id, l.replica_id), NULL)::agent_states,
    CASE WHEN a.kind = 'create' THEN ROW(u.id, u.username, u.email, u.display_name, u.created_at, a.agent_id)::user_states END
  FROM after a LEFT JOIN changed g ON g.id = a.id LEFT JOIN kept_alive k ON k.agent = a.id
    LEFT JOIN agent_liveness l ON a.kind = 'delete' AND l.agent = a.id
    LEFT JOIN users u ON a.kind = 'create' AND u.id = a.user_id
  UNION ALL
  SELECT r.n, 'conflict', r.violated, NULL, NULL::agent_states, NULL::user_states
  FROM unnest(refused_n, refused_constraint) r (n, violated)
  UNION ALL
  SELECT g.key::integer, 'guarded', g.value, NULL, NULL::agent_states, NULL::user_states FROM jsonb_each_text(guarded) g;

  -- Most groups have no such members, and the comparison takes a tenth of the group's time.
  IF cardinality(fit) < cardinality(members) THEN
    RETURN QUERY
    SELECT c.n, CASE WHEN c.n = ANY (late) OR c.not_after <= moment THEN 'late' ELSE 'stale' END, NULL::text, NULL::bigint, NULL::agent_states, NULL::user_states
    FROM unnest(members) c WHERE c.n <> ALL (fit) AND c.n <> ALL (refused_n) AND NOT guarded ? c.n::text;
  END IF;

  IF EXISTS (SELECT FROM unnest(members) c WHERE c.kind = 'delete' AND c.n = ANY (fit)) THEN
    DELETE FROM agent_liveness l USING unnest(members) c WHERE l.agent = c.id AND c.kind = 'delete' AND c.n = ANY (fit);
    DELETE FROM agents a USING unnest(members) c WHERE a.id = c.id AND c.kind = 'delete' AND c.n = ANY (fit);
    DELETE FROM users u USING unnest(members) c WHERE u.id = c.user_id AND c.delete_user AND c.n = ANY (fit);
  END IF;

  IF EXISTS (SELECT FROM unnest(members) c WHERE c.request_id IS NOT NULL AND c.n = ANY (fit)) THEN
    UPDATE request_ids r SET agent_state = to_jsonb(s), user_state = to_jsonb(u), revision = s.revision
    FROM unnest(members) c
      LEFT JOIN agent_states s ON s.id = c.id LEFT JOIN user_states u ON c.kind = 'create' AND u.id = c.user_id
    WHERE r.request_id = c.request_id AND r.principal = coalesce(c.principal, '') AND c.n = ANY (fit) AND c.kind <> 'delete';
    UPDATE request_ids r SET revision = t.revision
    FROM unnest(members) c JOIN agent_transitions t ON t.agent = c.id AND t.revision > counter.revision
    WHERE r.request_id = c.request_id AND r.principal = coalesce(c.principal, '') AND c.n = ANY (fit) AND c.kind = 'delete';
  END IF;
END
$$;
