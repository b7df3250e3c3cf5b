-- As before, but for a claw of very many agents: to look at all of them once for each of them took longer than the rest.

-- Judges leases that have ended, their rows locked: which must not end yet, until when (microseconds since 1970, by n),
-- and which end with a claw that is silent as a whole (its incident, and whether this group is the first to say so).
CREATE OR REPLACE FUNCTION judge_lease_ends(members agent_change[], ending integer[], moment timestamptz, OUT guarded jsonb, OUT incidents jsonb)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
  fleet fleet_state;
  free integer[];
  recent bigint;
  tokens double precision;
  used bigint;
  ask_every interval;
  first_ask timestamptz;
BEGIN
  guarded := '{}';
  incidents := '{}';
  -- Whoever ends leases does so one after the other: they share one measure and one bucket.
  SELECT * INTO fleet FROM fleet_state FOR UPDATE;

  SELECT coalesce(jsonb_object_agg(c.n, micros_of(greatest(g.until, fleet.no_lease_ends_before))), '{}') INTO guarded
  FROM unnest(members) c JOIN agent_liveness l ON l.agent = c.id LEFT JOIN lease_guards g ON g.replica_id = l.replica_id
  WHERE c.n = ANY (ending) AND greatest(g.until, fleet.no_lease_ends_before) > moment;

  SELECT coalesce(array_agg(e.n), '{}') INTO free FROM unnest(ending) e (n) WHERE NOT guarded ? e.n::text;
  IF free = '{}' THEN RETURN; END IF;

  -- Silent is a claw of which no agent has been heard for two intervals: all its leases end within the third.
  -- Each claw is looked at once, however many of its agents are in the group.
  WITH ended AS MATERIALIZED (
    SELECT a.claw_identifier, max(e.lease_expires_at) AS ends
    FROM unnest(members) c JOIN agents a ON a.id = c.id JOIN agent_liveness e ON e.agent = c.id
    WHERE c.n = ANY (free) GROUP BY a.claw_identifier
  ), silent AS (
    SELECT e.claw_identifier, e.ends FROM ended e
    WHERE NOT EXISTS (
      SELECT FROM agents o JOIN agent_liveness l ON l.agent = o.id
      WHERE o.claw_identifier = e.claw_identifier AND l.lease_expires_at > moment + fleet.interval_ms * interval '1 millisecond'
    )
    ORDER BY e.claw_identifier
  ), noted AS (
    INSERT INTO claw_incidents AS i (claw_identifier, incident_id, began_at, last_at, ended_at)
    SELECT s.claw_identifier, coalesce(k.incident_id, gen_random_uuid()::text), coalesce(k.began_at, moment), moment, k.ended_at
    -- What was heard after the last end has a lease that ends a lease after that, or later: else the same event goes on,
    -- also where a brake or a guard has held it back for long.
    FROM silent s LEFT JOIN claw_incidents k ON k.claw_identifier = s.claw_identifier
      AND k.last_at >= s.ends - fleet.lease_ms * interval '1 millisecond'
    ON CONFLICT (claw_identifier) DO UPDATE SET incident_id = excluded.incident_id, began_at = excluded.began_at,
      last_at = excluded.last_at, ended_at = excluded.ended_at
    RETURNING i.claw_identifier, i.incident_id, i.ended_at
  )
  SELECT coalesce(jsonb_object_agg(c.n, jsonb_build_object('id', s.incident_id, 'new', s.ended_at IS NULL)), '{}') INTO incidents
  FROM unnest(members) c JOIN agents a ON a.id = c.id JOIN noted s ON s.claw_identifier = a.claw_identifier WHERE c.n = ANY (free);

  SELECT count(*) INTO recent FROM claw_incidents i WHERE i.began_at > moment - fleet.lease_ms * interval '1 millisecond';
  IF fleet.brake_engaged_at IS NULL AND is_mass_silence(recent, fleet.claws) THEN
    fleet.brake_engaged_at := moment;
    -- Counted now: the census is some seconds old, and by a rate that is too low the first of them would wait for too long.
    SELECT count(*) / (4 * fleet.lease_ms / 1000.0) INTO fleet.brake_rate FROM agent_liveness l WHERE l.lease_expires_at IS NOT NULL;
    fleet.brake_tokens := 0;
    fleet.brake_filled_at := moment;
    fleet.brake_held_back := 0;
    fleet.brake_next_ask := moment;
  END IF;

  IF fleet.brake_engaged_at IS NOT NULL THEN
    -- All that is there, gone, takes four leases; with the lease that had to end first, that is within six. Of a fleet
    -- that grows meanwhile, too.
    fleet.brake_rate := greatest(fleet.brake_rate, greatest(fleet.agents, cardinality(free)) / (4 * fleet.lease_ms / 1000.0));
    -- Each that is held back is told its own moment to ask again, one after the other over all replicas: so all of them
    -- together ask twice as often as the bucket lets go, however many they are. Less would leave tokens unused.
    ask_every := interval '1 second' / (2 * fleet.brake_rate);
    -- A second's worth at most is saved up; two where that is less, or one would be lost whenever somebody asks late.
    tokens := least(greatest(2, fleet.brake_rate), fleet.brake_tokens
      + fleet.brake_rate * extract(epoch FROM moment - fleet.brake_filled_at)::double precision);
    first_ask := greatest(fleet.brake_next_ask, moment + interval '250 milliseconds');
    WITH queued AS (
      SELECT c.n, row_number() OVER (ORDER BY l.lease_expires_at, l.agent) AS place
      FROM unnest(members) c JOIN agent_liveness l ON l.agent = c.id WHERE c.n = ANY (free)
    ), held_back AS (
      SELECT q.n, first_ask + (q.place - floor(tokens)) * ask_every AS until FROM queued q WHERE q.place > floor(tokens)
    )
    SELECT guarded || coalesce(jsonb_object_agg(h.n, micros_of(h.until)), '{}'), cardinality(free) - count(*),
      coalesce(max(h.until), fleet.brake_next_ask)
    INTO guarded, used, fleet.brake_next_ask FROM held_back h;
    UPDATE fleet_state SET brake_engaged_at = fleet.brake_engaged_at, brake_rate = fleet.brake_rate,
      brake_tokens = tokens - used, brake_filled_at = moment, brake_held_back = fleet.brake_held_back,
      brake_next_ask = fleet.brake_next_ask;
  END IF;

  UPDATE claw_incidents i SET ended_at = moment
  FROM unnest(members) c JOIN agents a ON a.id = c.id
  WHERE i.claw_identifier = a.claw_identifier AND i.ended_at IS NULL AND incidents ? c.n::text AND NOT guarded ? c.n::text;
END
$$;
