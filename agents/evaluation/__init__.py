"""An agent and scenes in, held-out metrics and pictures out."""
