"""Pure rules: what may happen, what it holds, what closes it. No I/O and no clock.

`admit` decides, `resolve` closes, `explain` shows; everything they read comes in through
`ports`, everything they want written goes out as `changes`.
"""
