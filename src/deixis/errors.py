"""Errors a user can cause: one line that names the input, the problem and the remedy."""

from __future__ import annotations


def quoted(text: str) -> str:
    """``text`` in quotes, on one line, shortened for a message."""
    line = " ".join(text.split())
    return f"'{line if len(line) <= 60 else line[:57] + '...'}'"


def first_line(error: Exception) -> str:
    """What another library's error says first, shortened for a message; its kind where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__


class DeixisError(Exception):
    """Base of every error this package raises on purpose.

    Args:
        subject: what the error is about (a file name, an argument, a model name).
        problem: what is wrong with it.
        remedy: what to do about it.

    Attributes:
        code: exit code of a command that it ends.
    """

    code = 2

    def __init__(self, subject: object, problem: str, remedy: str) -> None:
        self.subject = str(subject)
        self.problem = problem
        self.remedy = remedy
        line = f"{self.subject}: {problem}; {remedy}"
        super().__init__(" ".join(line.split()))

    def __reduce__(self) -> tuple[type[DeixisError], tuple[str, str, str]]:
        """Errors of worker processes travel pickled, and by default as their one line."""
        return type(self), (self.subject, self.problem, self.remedy)


class InputError(DeixisError):
    """An image or folder that cannot be used."""


class UsageError(DeixisError):
    """An argument, option or call that makes no sense (exit code 2)."""


class ModelError(DeixisError):
    """A model name or folder that cannot be loaded."""


class CheckpointError(DeixisError):
    """A checkpoint that is unsafe, damaged, of another family, or of other shapes."""


class KindError(DeixisError):
    """Metres were asked of a depth map that is not metric."""
