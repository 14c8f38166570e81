"""The suite that every store must pass, for connectors inside and outside this repository.

Subclass in a test module and say how to connect; pytest does the rest:

    from ctxindex.stores.conformance import StoreConformance

    class TestMyStore(StoreConformance):
        def connect(self, path, index):
            return MyStore.connect(StoreLocation(index=index, path=path))

`connect` is called again with the same arguments after `close`, and must then find what was written. Interruptions
are simulated by failing in the store's own `put_records`, `write_chunks`, `delete_chunks` and `delete_records` (the
primitives of `ctxindex.stores.replacing`); a connector proves what a real SIGKILL does in tests of its own.
"""

from __future__ import annotations

from ctxindex.stores.conformance.basics import BasicsConformance
from ctxindex.stores.conformance.documents import DocumentsConformance
from ctxindex.stores.conformance.filtering import FilteringConformance
from ctxindex.stores.conformance.interruption import InterruptionConformance
from ctxindex.stores.conformance.multivectors import MultivectorConformance
from ctxindex.stores.conformance.searching import SearchingConformance


class StoreConformance(
    BasicsConformance,
    DocumentsConformance,
    SearchingConformance,
    FilteringConformance,
    InterruptionConformance,
    MultivectorConformance,
):
    """All of it. See the module's docstring."""


__all__ = ["StoreConformance"]
