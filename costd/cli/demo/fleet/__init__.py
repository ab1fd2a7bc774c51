"""`make demo FLEET=8`: daemons race for one budget while they and their coordinator are killed."""
