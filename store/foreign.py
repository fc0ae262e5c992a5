"""Texts by which errors of other libraries are recognised, where neither a type nor a code tells them apart.

These texts are not an interface and may change with a release of their library. Each entry names the test that
provokes the error, which fails when the text is no longer the library's.
"""

import re

NO_SERVER_ANSWER = ("Error performing",)
"""obstore: a request failed, as opposed to an answer that obstore cannot use (test_fetch: test_body_that_stalls...)."""

NO_HEAD_REQUESTS = ("405 Method Not Allowed",)
"""obstore: the server refuses HEAD, raised as FileNotFoundError (test_foreign)."""

NO_LENGTH = ("Content-Length Header missing",)
"""obstore: the server does not announce the size of an object (test_foreign)."""

ASKED_FOR_CREDENTIALS = ("http://169.254.169.254/",)
"""obstore: no credentials in the environment, so that it asked the cloud's metadata server (test_foreign)."""

WORKER_DIED = ("DataLoader worker (pid", "Pin memory thread exited")
"""torch: a loader process died, and the thread that copies for a GPU with it (test_loading: a_killed_loader_...)."""

SHARED_MEMORY_FULL = ("unable to allocate shared memory", "unable to resize file")
"""torch: /dev/shm is full (test_processes: torch_words_a_full_shared_memory...)."""

TOO_MANY_FILES = ("Too many open files", "items of ancdata")
"""torch, multiprocessing: no further file can be opened, in a worker or on the way from one (test_limits)."""

NO_MEMORY = ("can't allocate memory", "Cannot allocate memory", "Unable to allocate", "bad_alloc", "MemoryError")
"""torch, the system, numpy, C++, Python: this process has no memory left, also in the text of a worker's traceback
(test_limits)."""

RANK_DIED = ("gloo", "Connection closed by peer", "Connection reset by peer")
"""torch: gloo lost the connection to another rank (test_resume: a_rank_that_is_killed_ends_the_run)."""

AUTHENTICATION = ("Authentic", "authentic")
"""ray: the nodes' tokens differ; raised as RuntimeError and ValueError, too (no test: it needs a second cluster)."""

UNKNOWN_SAMPLING = ("Could not determine subsampling level",)
"""simplejpeg: a JPEG whose chroma sampling TurboJPEG has no name for (test_decode: every_sampling...)."""

JPEG_NO_MEMORY = ("Insufficient memory", "Memory allocation failure")
"""simplejpeg: libjpeg could not allocate, raised as ValueError (test_decode: lack_of_memory...)."""

_STATUS = re.compile(r"status code: (\d{3})")


def says(error: BaseException, texts: tuple[str, ...]) -> bool:
    """Whether an error's message has one of these texts.

    >>> says(RuntimeError("DataLoader worker (pid 7) is killed"), WORKER_DIED)
    True
    """
    message = str(error)
    return any(text in message for text in texts)


def http_status(error: BaseException) -> int:
    """The status of a server's answer in an error of obstore's; 0 where there was no answer, or one it could not use.

    >>> http_status(OSError("Server returned non-2xx status code: 503 Service Unavailable"))
    503
    """
    found = _STATUS.search(str(error))
    return int(found[1]) if found else 0
