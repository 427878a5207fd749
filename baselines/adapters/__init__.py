"""Models of other libraries, run as models of the suite; each is named by its module."""
