"""What crosses the boundary between server and client; the only place that imports flwr."""
