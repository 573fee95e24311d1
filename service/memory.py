"""What a process gives back of its memory."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_LARGE_BYTES = 1 << 20
_SPARE_BYTES = 8 << 20


def give_back_large_blocks() -> bool:
    """Have glibc return a block of 1 MiB or more to the system once it is freed.

    By itself it raises that limit to the largest block it has seen freed, up to 32 MiB. From then
    on photos (Pillow holds them in blocks of 16 MiB) lie in the arenas of the threads that decoded
    them, which hardly ever shrink: a few large photos would be remembered as gigabytes for good.

    Returns:
        Whether there is a glibc that took it.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl and macOS have another allocator
        return False
    # A limit that is set is no longer raised, and nor is that of what an arena keeps at its end:
    # at its 128 KiB each small photo would be asked of the system anew.
    return bool(
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES) and mallopt(_M_TRIM_THRESHOLD, _SPARE_BYTES)
    )
