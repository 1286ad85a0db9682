"""Everything that is kept in Redis or on disk for other parts of Warploom."""
