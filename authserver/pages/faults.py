"""What is wrong with a form, beside the fields that it is about, in the language of who filled it in."""

from authserver.errors import Conflict, EmailTaken, InvalidInput, Problem, UsernameTaken, WrongPassword
from authserver.pages.language import Language

REFUSALS = (InvalidInput, Conflict, WrongPassword)
"""What the domain raises about the values of a form."""

Faults = dict[str, list[str]]
"""Sentences by the field's name."""


def of(refusal: Problem, language: Language) -> Faults:
    """Return what to show for a refusal."""
    match refusal:
        case InvalidInput():
            found: Faults = {}
            for fault in refusal.faults:
                sentence = language.say(f"wrong.{fault.code}", **fault.values)
                found.setdefault(fault.pointer.removeprefix("/"), []).append(sentence)
            return found
        case UsernameTaken():
            return {"username": [language.say("wrong.username_taken")]}
        case EmailTaken():
            return {"email": [language.say("wrong.email_taken")]}
        case WrongPassword():
            return {"current_password": [language.say("wrong.current_password")]}
    return {"username": [language.say("wrong.again")]}
