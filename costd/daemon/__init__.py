"""One daemon: what it serves and how it starts; books, clients and fleet know nothing of that."""
