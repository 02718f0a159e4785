"""Jobs: runs of minutes or hours, on this machine or on a cluster."""
