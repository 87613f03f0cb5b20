"""Runs of MLflow held against each other, in a terminal and on a page."""
