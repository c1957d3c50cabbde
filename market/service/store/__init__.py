"""The market's database: the one place where SQL lives."""
