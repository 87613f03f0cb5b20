"""Logs where you have none: a simulated marketplace, and KuaiRand."""
