"""A page that runs an exported file in a browser, and what serves it."""
