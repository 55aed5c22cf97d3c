"""The parts of `RedisStore`: the connection, and one part for each kind of record."""
