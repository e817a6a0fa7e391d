"""What an error says, on one line: those of other libraries may have many, and ours end in one."""


def one_line(error: BaseException, longest: int = 500) -> str:
    """Write an error's text on one line.

    Args:
        error: Any error; one without a text gives the name of its class.
        longest: Characters from which on the middle is left out.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= longest else f"{text[: longest // 2]} ... {text[-longest // 2 :]}"
