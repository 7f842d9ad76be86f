"""Converters: Connect values and rows of Blocks to bytes and back.

Used only where bytes leave or come in. :func:`make_converter` finds one by Connect's class
name, :func:`convert` writes a Block.
"""
