"""What a request costs: its pieces measured on the serving host, read as a table, and added up by a formula."""
