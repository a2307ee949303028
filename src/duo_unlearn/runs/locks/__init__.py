"""Locks of a run folder, in two forms: flock, and owner files for file systems where flock excludes nobody."""
