-- Where the log ends at this moment.
SELECT revision FROM revision_counter
