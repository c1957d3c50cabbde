"""The day's pictures in one HTML file that asks nothing of the network."""
