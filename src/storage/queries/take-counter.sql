-- If the history of the newest revision is lost, begins a new one at once, so that readers need not wait for its first
-- transition.
SELECT revision FROM take_counter($1::bigint)
