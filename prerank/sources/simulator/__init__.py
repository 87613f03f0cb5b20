"""A made-up marketplace whose truth is known, served by a cascade and logged."""
