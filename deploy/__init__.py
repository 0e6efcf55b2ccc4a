"""Starts the server and the devices as real processes that speak gRPC."""
