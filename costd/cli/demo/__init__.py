"""`make demo`: the daemon under a few hundred agents, watched live and checked to the nano-dollar.

The workers (`crew`, `replay`) know the daemon only through the Python client and write what it
told them into journals. `recount` adds those up again without costd's rules or prices, and
`verify` compares the sums with the daemon's books.
"""
