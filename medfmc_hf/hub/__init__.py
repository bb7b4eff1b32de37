"""Pushes to the Hub (data set, metric, models, run records) and fetching of adapters. Nothing contacts the Hub unless asked to."""
