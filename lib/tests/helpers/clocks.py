"""Bounds of time for tests: so wide that on a busy machine only endless or quadratic work exceeds them."""

import resource

ENDS_S = 30  # what would else never end


def spend_s(work):
    """Return the seconds of processor time that `work` spends on itself: the least of three runs.

    What the kernel does for it, as handing out pages of memory, depends on the machine and is left out.
    """

    spent = []
    for _ in range(3):
        start = resource.getrusage(resource.RUSAGE_SELF).ru_utime
        work()
        spent.append(resource.getrusage(resource.RUSAGE_SELF).ru_utime - start)
    return min(spent)
