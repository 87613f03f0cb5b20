"""What a study found, as a table in the terminal, a picture and a page."""
