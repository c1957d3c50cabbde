"""``peergrid statement``: the month of every account, as pages to print and as CSV."""
