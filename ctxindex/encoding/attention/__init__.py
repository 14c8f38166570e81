"""Attention over packed rows: each token sees its own row, and where there is one a corpus context.

packed      what transformers calls, and the ways to one result
products    the way of a CPU: matrix products and one exp2, and their gradient
context     the same where every token also sees the keys of a corpus context
mpnet       MPNet, whose rows are padded, with a corpus context
"""
