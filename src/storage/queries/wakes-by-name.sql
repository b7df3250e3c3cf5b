-- Wakes by their names.
SELECT w.*, clock_timestamp() AS read_at FROM wakes w WHERE w.wake_id = ANY ($1::text[])
