"""The messages between meters and market, and their signatures."""
