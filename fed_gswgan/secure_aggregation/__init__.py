"""Secure aggregation: a server that cheats can open no sum of fewer than H releases."""
