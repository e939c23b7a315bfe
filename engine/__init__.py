"""The engine: configuration, source, plan, stream, commit. It knows Ray but not where Ray runs."""
