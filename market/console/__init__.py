"""The operator's console: pages, a REST API and live events over stored or running markets."""
