"""Selectors inside others' frameworks, and others' retrievers as ours: one module a framework, each behind an extra.

The retrievers' own scores go with the passages, as far as a framework carries them: a selector that was trained with
them is worth more with them.
"""
