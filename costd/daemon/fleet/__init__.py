"""The daemon's side of the fleet: what it is lent, tells, gives back, and hears."""
