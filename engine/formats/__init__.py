"""What shards look like on disk: a class per format, no state, the same rows giving the same bytes."""
