"""What costd costs and what it withstands: measured, never asserted on time."""
