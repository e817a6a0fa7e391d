"""What an error says, on one line: those of other libraries may have many, and ours end in one."""


def one_line(error: BaseException, longest: int = 500) -> str:
    """Write an error's text on one line, in which no character can do anything to a terminal.

    Args:
        error: Any error; one without a text gives the name of its class.
        longest: Characters from which on the middle is left out.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    if len(text) > longest:
        text = f"{text[: longest // 2]} ... {text[-longest // 2 :]}"
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
