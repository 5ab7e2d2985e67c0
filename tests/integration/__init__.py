"""Real daemons, real workers, real HTTP."""
