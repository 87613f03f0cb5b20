"""Metrics of each request, their intervals, models and runs compared."""
