"""Where the engine runs, and the command line that starts everything."""
