"""What runs where the data is: the guard, and the critic it keeps."""
