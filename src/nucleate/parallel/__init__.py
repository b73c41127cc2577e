"""Many processes as one: the face that everything else is written to, and what stands behind it.

    Communicator            rank, size, sum, gather, agree, all, exclusive_scan, barrier, send, receive, survivors
    SingleProcess           one process
    mpi.MPICommunicator     the ranks that `mpirun` started, by mpi4py
    process_group.ProcessGroupCommunicator
                            those of a torch.distributed process group

Nothing outside this package imports MPI.
"""

from nucleate.parallel.communicator import Communicator as Communicator
from nucleate.parallel.communicator import RanksLost as RanksLost
from nucleate.parallel.communicator import SingleProcess as SingleProcess
from nucleate.parallel.communicator import communicator_of as communicator_of
