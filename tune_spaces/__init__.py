"""Spaces of sweeps, one a file: a dict from dotted keys to what Ray Tune draws their values from."""
