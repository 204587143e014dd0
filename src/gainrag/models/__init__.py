"""Where weights come from: registry, hub, folders, dtype, device, threads.

What language models, selectors and retrievers share.
"""
