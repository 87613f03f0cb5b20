"""What was found, shown: of a pipeline, of compared runs, of a search; figures, words, pages and terminal tables."""
