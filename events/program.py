# SPDX-License-Identifier: Apache-2.0
"""A program as its instructions show it: what ``bpf.prog`` of a load has."""

from typing import NamedTuple

from .value import JSON


class Program(NamedTuple):
    """What a call asked the kernel to load, whether the kernel took it or not."""

    insn_count: int
    """As many as there are as far as the caller says, or the kernel."""
    sha256: str
    """Of all of them, with the descriptors of maps taken as 0, in hexadecimal: the same whenever
    the program is loaded, and from Linux 6.18 on its beginning is the tag. Empty if some are
    missing.
    """
    proven: bool
    """They are what the kernel looked at: its own copy, or of the tag that it made."""
    license: str | None
    """None: it was not read."""
    helpers: tuple[str, ...] = ()
    """``bpf_map_lookup_elem``, each once, in the order in which the program has them."""
    kfuncs: tuple[str, ...] = ()
    """The same; ``kfunc#ID`` if this kernel's BTF does not say, ``@N`` behind those of module N
    of fd_array.
    """
    variables: tuple[str, ...] = ()
    """Of the kernel, whose address it takes."""
    subprogram_count: int = 0
    tail_calls: bool = False
    map_ids: tuple[int, ...] | None = None
    """That the verifier found in it; None: it was not loaded, or they could not be read."""
    constants: tuple[int, ...] = ()
    """Numbers that may mean something to a reader."""
    strings: tuple[str, ...] = ()
    listing: tuple[str, ...] = ()
    """Its instructions in the kernel's notation, if they were asked for."""
    cut: tuple[str, ...] = ()
    """Of these there are more; ``insns``: not all instructions were read."""

    def document(self) -> dict[str, JSON]:
        """What ``bpf.prog`` has besides the object: a list that is empty is left out."""
        document: dict[str, JSON] = {"insn_count": self.insn_count, "proven": self.proven}
        if self.sha256:
            document["sha256"] = self.sha256
        if self.license is not None:
            document["license"] = self.license
        document["subprogram_count"] = self.subprogram_count
        document["tail_calls"] = self.tail_calls
        for name in ("helpers", "kfuncs", "variables", "strings", "cut"):
            if found := getattr(self, name):
                document[name] = list(found)
        if self.constants:
            document["constants"] = [hex(number) for number in self.constants]
        if self.map_ids is not None:
            document["map_ids"] = list(self.map_ids)
        return document
