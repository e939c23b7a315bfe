"""One line of what the doctor says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """What was looked at, what was found, and if it is wrong how to mend it."""

    what: str
    said: str
    mend: str = ""
    """Empty when it is well."""
    node: str = ""
    """Where, if not on all machines alike."""

    @property
    def ok(self) -> bool:
        return not self.mend

    def __str__(self) -> str:
        where = f" ({self.node})" if self.node else ""
        return f"{'ok   ' if self.ok else 'wrong'} {self.what:16} {self.said}{where}" + (
            f"; {self.mend}" if self.mend else ""
        )


def together(found: Sequence[Finding]) -> list[Finding]:
    """What is well on all machines, in one line; what is wrong, for each machine."""
    lines: list[Finding] = []
    for what in dict.fromkeys(finding.what for finding in found):
        of_it = [finding for finding in found if finding.what == what]
        well, ill = [one for one in of_it if one.ok], [one for one in of_it if not one.ok]
        for said in dict.fromkeys(finding.said for finding in well):
            nodes = [finding.node for finding in well if finding.said == said]
            lines.append(Finding(what, said, node=nodes[0] if len(nodes) == 1 else f"{len(nodes)} machines"))
        lines += ill
    return lines
