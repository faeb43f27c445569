"""Who hears how far a study of many evaluations is."""


class Watcher:
    """Hears nothing of it; a subclass shows it."""

    def begins(self, study: str, evaluations: int, further: int, n: int) -> None:
        """A study of so many evaluations begins, and of ``further`` ones at most that depend on
        what they find, each on ``n`` images.
        """

    def evaluated(self) -> None:
        """One of the evaluations is done."""

    def ended(self) -> None:
        """The study is over, or failed."""
