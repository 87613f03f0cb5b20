"""Metrics of each request, their intervals, models and runs compared, work allocated by them."""
