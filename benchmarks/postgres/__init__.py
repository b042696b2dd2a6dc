"""The same questions on a PostgreSQL server that keeps its promises (fsync on), a multiple of a bare commit there."""
