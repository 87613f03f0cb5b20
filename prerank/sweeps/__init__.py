"""Many trainings or searches on Ray Tune: the space, which trials go on, and how a killed sweep is resumed."""
