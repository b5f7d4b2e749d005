"""Other libraries' words for what is here: thin, and imported only when asked for.

Each module needs the extra that its docstring names.
"""
