"""Runs in MLflow, found again, and what waits while its server is down."""
