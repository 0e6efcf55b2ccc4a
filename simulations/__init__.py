"""Drives server and client on one machine or a Ray cluster."""
