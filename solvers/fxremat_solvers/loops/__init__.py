"""Schedules of the reversal of a loop: which states and tapes are kept, and what runs again.

x_i is the state before step i. A schedule is a stream of actions, never a list, so that a hundred
thousand steps cost no memory; `Interpreter` says what a stream does and refuses a wrong one.
"""
