"""The daemon's books: every request is decided here, and written before it is answered."""
