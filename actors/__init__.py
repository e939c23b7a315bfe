"""Ray actors: load once, batch in, batch out. They know the method and nothing of the engine."""
