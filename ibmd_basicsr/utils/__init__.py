"""Small helpers without knowledge of BasicSR."""
