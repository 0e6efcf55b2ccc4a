"""Clipping, noise, events, accountant and ledger; knows neither models nor training."""
