-- Notices that the last revision is of a history that was lost, and moves the counter beyond it: by itself, so that nobody
-- has to wait for the first transition of the new one.
SELECT revision FROM take_counter($1::bigint)
