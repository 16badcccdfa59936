"""threadpoolctl knows fastreg's pool once this module is imported.

``import fastreg`` does so by itself where threadpoolctl was imported before it; otherwise say
``import fastreg.threadpools``. Then limits apply to fastreg as to every BLAS in the process::

    with threadpoolctl.threadpool_limits(1):
        ...
"""

import threadpoolctl


class FastregController(threadpoolctl.LibController):  # type: ignore[misc] # it has no stubs
    """Finds the C core by its file name and its two symbols."""

    user_api = "fastreg"
    internal_api = "fastreg"
    filename_prefixes = ("fastreg_runtime",)
    check_symbols = ("fastreg_get_num_threads", "fastreg_set_num_threads")

    def get_num_threads(self) -> int:
        return int(self.dynlib.fastreg_get_num_threads())

    def set_num_threads(self, num_threads: int) -> None:
        self.dynlib.fastreg_set_num_threads(num_threads)

    def get_version(self) -> str:
        import fastreg

        return fastreg.__version__


threadpoolctl.register(FastregController)
