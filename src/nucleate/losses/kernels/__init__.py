"""Fast versions of losses, each beside the plain twin that it is tested against and falls back to.

ready.py   whether a kernel may be used          threads.py   the same work on several threads
total.py   the autograd node of all of them      layout.py    how classes lie in memory
scalars.py, tiles.py, softmax.py, *_kernels.py   compiled by numba, imported only where it is installed
"""
