"""Client processes that are attached: their sessions, and the allowances that they draw on."""
