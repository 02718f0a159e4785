"""Commands: one module for each, and `main`, the entry point of all."""
