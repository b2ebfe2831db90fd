"""What Glovebox costs: each figure beside a peer or a bare run of the same work, as a ratio.

``python -m bench`` measures everything, ``python -m bench NAME`` one. Each module has one
function ``run(folder) -> list[Ratio]`` that leaves nothing behind outside ``folder``.
"""
