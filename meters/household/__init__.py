"""Households: what they own, what they will use, and what physically happens in an interval."""
