"""A whole federation in one file, and an algorithm, a critic and a data set of one's own."""
