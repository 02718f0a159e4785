"""An example of everything that a package of one's own may add to air-env; its pyproject.toml names each."""
