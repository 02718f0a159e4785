"""The inference network ``q(z, n | x)``: one agent for each kind of scene."""
