"""One command for a CUDA machine, maybe without network: tests, exactness and step times.

    python -m benchmarks.cuda run --device cuda --parts tests exactness bench --out DIR

Each part runs in a process of its own and leaves a row a cell, so that a run that was cut off goes
on where it stopped. A cell that fails, hangs or takes its process along is a row with the reason.
`--device cpu` runs a small part of the same.
"""
