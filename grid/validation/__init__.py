"""Is a net fit to be a market's feeder? Findings in the words of those who run networks."""
