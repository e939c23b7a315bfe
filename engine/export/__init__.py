"""A data set in other formats: each part a function of one committed shard, so that a copy grows as the log does."""
