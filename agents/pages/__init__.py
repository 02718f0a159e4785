"""Pages of results: tables, CSV files and figures."""
