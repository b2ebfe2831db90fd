"""The few kinds of error that people may see, and the one base they share.

Only the text of a :class:`UserError` reaches a page, an API answer or a terminal; anything else
is internal and is answered with a neutral sentence.
"""


def _(message: str) -> str:
    """Mark a sentence for translation; the portal looks it up, the core shows it as it stands."""
    return message


class GloveboxError(Exception):
    """Base of every error raised on purpose."""


class UserError(GloveboxError):
    """An error whose text is safe to show: what was wrong, where, and what to do.

    ``message`` is an untranslated template, ``params`` fill it. ``field`` names the input that
    was at fault (``resources.memory``), ``code`` names the rule (``review.same-unit``).
    """

    def __init__(self, message: str, *, field: str = "", code: str = "", **params: object) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.code = code
        self.params = params

    def __str__(self) -> str:
        return self.message.format(**self.params) if self.params else self.message


class Invalid(UserError):
    """The input is wrong; ``field`` says where. HTTP 400, exit code 2."""


class Denied(UserError):
    """This person may not do this; the sentence is the rule. HTTP 403."""


class Conflict(UserError):
    """The thing has moved on, so the action no longer applies. HTTP 409."""


class CannotRun(UserError):
    """The machine or its policy does not allow the work to start. Exit code 3."""
