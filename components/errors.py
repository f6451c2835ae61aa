"""The one exception a user is meant to see."""


class UserError(Exception):
    """Something the user can put right: what is wrong, where, and what to do.

    The command line prints it without a traceback and exits with code 2. ``problems`` holds one line for each finding
    when there are several (a config or a dataset is always checked to its end).
    """

    def __init__(self, what: str, *, remedy: str = "", problems: tuple[str, ...] = ()) -> None:
        self.what, self.remedy, self.problems = what, remedy, problems
        super().__init__(
            "\n".join([what, *(f"  - {line}" for line in problems), *([f"-> {remedy}"] if remedy else [])])
        )
