"""Tables of several methods side by side, each cell trained, measured and kept by itself."""
