"""The prose in docstrings: what is kept, what is left out, and that nothing is imported."""

from pathlib import Path

from hf_minilm.data.documentation import documentation_documents, documentation_versions, prose

MODULE = r'''"""Reads the **long** letters of `sailors` and :class:`~harbour.Port` keepers.

    indented = "literal text that is not prose at all here"

>>> open_letters("this is a doctest and it goes away")
3
"""
raise RuntimeError("a source file must never be run")

class Letter:
    """Too short to keep.

    A letter that was written by hand, with a [link](https://example.org/a)
    in its second line.

    Parameters
    ----------
    ink : str
        The colour of the ink that the letter was written with.

    Notes
    -----
    The notes of a docstring are prose again and are kept.
    """

    async def read(self):
        """Reads the letter aloud to everyone in the room.

        Args:
            voice: A voice that everyone in the room can hear well.

        ```python
        the code between fences is no prose either
        ```
        """
        pattern = "\d"
'''


def write_library(folder: Path) -> dict[str, Path]:
    (folder / "inner" / "tests").mkdir(parents=True)
    (folder / "letters.py").write_text(MODULE, encoding="utf-8")
    (folder / "broken.py").write_text('"""A file that does not parse has no document.""" def', encoding="utf-8")
    (folder / "plain.py").write_text("number = 3\n", encoding="utf-8")
    (folder / "inner" / "again.py").write_text(
        '"""Reads the letter aloud to everyone in the room."""', encoding="utf-8"
    )
    (folder / "inner" / "tests" / "test_it.py").write_text('"""A test is not documentation of anything."""')
    return {"harbour": folder}


def test_a_module_is_a_document_of_the_prose_in_its_docstrings(tmp_path: Path) -> None:
    documents = {document.source: document for document in documentation_documents(write_library(tmp_path))}
    assert documents["docs:harbour/letters.py"].paragraphs == (
        "Reads the long letters of sailors and harbour.Port keepers.",
        "A letter that was written by hand, with a link in its second line.",
        "The notes of a docstring are prose again and are kept.",
    )


def test_a_paragraph_that_an_earlier_module_has_is_left_out_and_the_order_is_that_of_the_names(tmp_path: Path) -> None:
    folders = write_library(tmp_path)
    first, second = list(documentation_documents(folders)), list(documentation_documents(folders))
    assert [document.source for document in first] == ["docs:harbour/inner/again.py", "docs:harbour/letters.py"]
    assert first[0].paragraphs == ("Reads the letter aloud to everyone in the room.",)
    assert first == second


def test_lists_tables_and_directives_are_not_prose() -> None:
    docstring = """
        - A point of a list with quite enough words in it.

        | a table | with | many | cells | in | each | row |

        .. note:: this directive has words enough to be a paragraph

        a + b = c * (d - e) / f ** 2 + 3.14159 - 2.71828
        """
    assert list(prose(docstring)) == []


def test_the_versions_name_python_and_the_installed_libraries() -> None:
    versions = documentation_versions()
    assert versions.startswith("python==3.")
    assert "numpy==" in versions
