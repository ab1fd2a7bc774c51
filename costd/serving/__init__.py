"""What every host does around its services: bytes to bytes, sockets, stopping."""
