-- Deletes the incidents whose transitions are no longer kept.
DELETE FROM incidents WHERE after_revision < (SELECT oldest FROM revision_counter)
