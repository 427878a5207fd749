"""What other libraries do beside us: the same work, in turns, and how far answers agree. Run: `tox run -e peers`.

`contest` says what is compared, `race` times it, `book` keeps and reads the records; one file of contests for each
kind of work. `book` imports neither torch nor a peer, so that a report can read what was measured elsewhere.
"""
