"""What a fleet on one budget costs: real coordinators, real PostgreSQL, on loopback."""
