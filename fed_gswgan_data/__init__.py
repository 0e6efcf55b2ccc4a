"""Data files of the library: letter forms, in the wheel and never in a Flower bundle."""
