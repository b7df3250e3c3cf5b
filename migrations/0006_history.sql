-- Which history of the database the revisions belong to, told by where the database is and who wrote this row. Each way to
-- bring an older state back changes at least one of the columns' counterparts; a restart of the server changes one, too. The
-- revision gap that follows costs nothing where nothing was lost: nobody's position lies strictly within it.
CREATE TABLE revision_history (
  singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
  -- The transaction that wrote this row. A row that was dumped and restored, or copied, has another one in its xmin.
  written_by xid8,
  -- Which database of the server: a copy of it (CREATE DATABASE ... TEMPLATE) has another oid.
  database_oid oid,
  -- The transaction that last created, renamed or altered the database: oids can be chosen, and databases swapped by renaming.
  database_written_by xid,
  -- The start of the server. No disk, data folder or backup is put back, and no standby promoted, under a running primary.
  server_started_at timestamptz
) WITH (fillfactor = 10);

-- All null: the database may have been restored before this migration. A gap follows.
INSERT INTO revision_history DEFAULT VALUES;

-- Why the gap is there, as history_break() says; or 'revision_seen' (a replica saw a higher revision) or 'declared' (by an
-- operator). Null: from before this migration.
ALTER TABLE revision_jumps ADD COLUMN reason text COLLATE "C";

-- Whether the server is another one than that of the last gap, or was promoted since. Where the provider lets nobody ask: no.
CREATE FUNCTION is_another_server() RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
  RETURN (
    SELECT c.timeline <> current_timeline() OR c.system_identifier <> (SELECT s.system_identifier FROM pg_control_system() s)
    FROM revision_counter c
  );
EXCEPTION WHEN OTHERS THEN
  RETURN false;
END
$$;

-- Why the database is not certain to be in the history that gave the last revision. Null: it is. 'server_started' alone means
-- a restart in nearly all cases, which lost nothing; a disk or data folder that was put back looks the same.
CREATE FUNCTION history_break() RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
  reason text;
BEGIN
  SELECT CASE
      WHEN num_nulls(h.written_by, h.database_oid, h.database_written_by, h.server_started_at) > 0 THEN 'unknown'
      WHEN h.xmin <> h.written_by::xid THEN 'row_copied'
      WHEN h.database_oid <> d.oid THEN 'another_database'
      WHEN h.database_written_by <> d.xmin THEN 'database_altered'
      WHEN h.server_started_at <> pg_postmaster_start_time() THEN
        CASE WHEN is_another_server() THEN 'another_server' ELSE 'server_started' END
    END INTO reason
  FROM revision_history h, pg_database d WHERE d.datname = current_database();
  IF NOT FOUND THEN RETURN 'unknown'; END IF;
  RETURN reason;
END
$$;

-- A name for the history, for whoever keeps in memory what was read from the database: under another name it is read anew.
CREATE FUNCTION history_name() RETURNS text LANGUAGE sql STABLE AS $$
  SELECT concat_ws('/', extract(epoch FROM pg_postmaster_start_time()), d.oid, d.xmin, h.xmin)
  FROM pg_database d LEFT JOIN revision_history h ON true WHERE d.datname = current_database()
$$;

-- Notes that the database, as it is now, is in the history that gives the next revision.
CREATE FUNCTION note_history() RETURNS void LANGUAGE sql VOLATILE AS $$
  INSERT INTO revision_history (written_by, database_oid, database_written_by, server_started_at)
  SELECT pg_current_xact_id(), d.oid, d.xmin, pg_postmaster_start_time() FROM pg_database d WHERE d.datname = current_database()
  ON CONFLICT (singleton) DO UPDATE SET written_by = excluded.written_by, database_oid = excluded.database_oid,
    database_written_by = excluded.database_written_by, server_started_at = excluded.server_started_at
$$;

-- A distance at random, up to 2^36 (some 19 hours of revision_of_this_moment).
CREATE FUNCTION random_revision_distance() RETURNS bigint LANGUAGE sql VOLATILE
RETURN 1 + floor(random() * 68719476736)::bigint;

-- A revision beyond `last`, and beyond what another history that began in the same state can have given. The clock says so,
-- where it is ahead of `last`. Where it is behind (a clock that was wrong, then or now), two histories go apart by chance: a
-- fixed distance would lead both of them to the same revision.
CREATE FUNCTION revision_beyond(last bigint) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  now_revision CONSTANT bigint := revision_of_this_moment();
BEGIN
  RETURN CASE WHEN now_revision > last THEN now_revision ELSE last + random_revision_distance() END;
END
$$;

-- Ends the history up to `counter`, whose row is locked, and begins one beyond `seen`. Returns the counter as it is then.
CREATE FUNCTION begin_history(counter revision_counter, seen bigint, reason text) RETURNS revision_counter
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  jump_to CONSTANT bigint := revision_beyond(greatest(counter.revision, seen));
  -- Seconds since 2024: more replicas than one a second do not start for long. The column is an integer, until 2092.
  replicas_from CONSTANT bigint := least(2147000000,
    greatest((SELECT last_value FROM replicas_id_seq) + 1000, extract(epoch FROM clock_timestamp())::bigint - 1704067200));
BEGIN
  INSERT INTO revision_jumps (from_revision, to_revision, occurred_at, reason)
  VALUES (counter.revision, jump_to, clock_timestamp(), reason);
  -- The release before compares these two. Some providers let nobody ask for them.
  BEGIN
    counter.timeline := current_timeline();
    counter.system_identifier := (SELECT s.system_identifier FROM pg_control_system() s);
  EXCEPTION WHEN OTHERS THEN
    NULL;
  END;
  UPDATE revision_counter SET revision = jump_to, partitioned_until = add_transition_partitions(jump_to + 1),
    timeline = counter.timeline, system_identifier = counter.system_identifier
  RETURNING * INTO counter;
  PERFORM note_history();
  -- The lost history gave epochs and numbers of replicas, too, and there may still be streams and replicas that have them.
  IF nextval('agent_epochs') < jump_to THEN PERFORM setval('agent_epochs', jump_to); END IF;
  IF (SELECT last_value FROM replicas_id_seq) < replicas_from THEN PERFORM setval('replicas_id_seq', replicas_from); END IF;
  RETURN counter;
END
$$;

-- Locks the counter until the commit. Where the history that gave the last revision may have been lost, it first moves on
-- beyond whatever that one can have given, and beyond `seen`, which somebody has seen of it; the gap is recorded.
CREATE OR REPLACE FUNCTION take_counter(seen bigint DEFAULT 0) RETURNS revision_counter LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  counter revision_counter;
  reason text;
BEGIN
  SELECT * INTO counter FROM revision_counter FOR UPDATE;
  -- After the lock: whoever had it may have noted the history.
  reason := coalesce(history_break(), CASE WHEN counter.revision < seen THEN 'revision_seen' END);
  IF reason IS NULL THEN RETURN counter; END IF;
  RETURN begin_history(counter, seen, reason);
END
$$;

-- For what history_break cannot see: whoever knows that an older state was brought back says so. A day beyond the clock, since
-- that of the lost history may have been ahead.
CREATE FUNCTION declare_new_history() RETURNS revision_jumps LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  counter revision_counter;
  gap revision_jumps;
BEGIN
  SELECT * INTO counter FROM revision_counter FOR UPDATE;
  counter := begin_history(counter, revision_of_this_moment() + 86400000 * 1024::bigint, 'declared');
  SELECT * INTO gap FROM revision_jumps j WHERE j.to_revision = counter.revision;
  RETURN gap;
END
$$;
