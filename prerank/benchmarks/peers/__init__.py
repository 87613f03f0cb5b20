"""What a user would pick instead, configured as its own documentation says is fast; none is part of the product."""
