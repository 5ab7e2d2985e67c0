"""Connected pairs, and fakes that keep the same contract as the real thing."""
