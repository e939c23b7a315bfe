"""Programs to begin from: run them, then copy what you need."""
