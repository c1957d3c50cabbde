"""``peergrid bench ingest``: the market's intake under load, with a real broker and signed messages."""
