"""A model's structure, read off one forward pass and drawn: as Mermaid's text, or as a figure.

`tape` records what ran, in which module, on what. `build` makes boxes and edges (`parts`) of it,
with `attention` for what one fused attention is made of, and `folding` draws equal blocks once.
`mermaid` writes the text. `layout` says where things go in a figure, and `figure` draws it.
"""
