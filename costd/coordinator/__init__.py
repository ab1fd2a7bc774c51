"""The authority over fleet budgets: leases to daemons, reports from them, on PostgreSQL."""
