"""Models as they come: read from files and objects, repaired, and cut to what is chosen."""
