INSERT INTO replicas DEFAULT VALUES RETURNING id, clock_timestamp() AS read_at
