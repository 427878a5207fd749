"""The one exception that the command line shows without a traceback."""


class UserError(ValueError):
    """Something the user can mend; its message says what was expected, what was got and what to do."""


class DivergedError(RuntimeError):
    """Training or evaluation met NaN or infinity; the message names the phase and the step."""


class MissingDataError(UserError):
    """A known data set that is not on this machine and cannot be fetched; what needs no data can go on without it."""
