-- The newest revision.
SELECT revision FROM revision_counter
