"""`python -m edge_seg`: the same as the `edge-seg` command."""

from __future__ import annotations

from .cli import run

if __name__ == "__main__":
    run()
