"""What a critic and a generator learn from; knows neither privacy nor transport."""
