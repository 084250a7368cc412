"""The page to see decoding on: what is computed for it, and its files.

A server sends it; ``tdtdecode explain`` writes it as one file.
"""
