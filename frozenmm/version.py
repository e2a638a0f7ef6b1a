"""The version of frozenmm and its address, in one place."""

__version__ = '0.2.0.dev0'
PROJECT_URL = 'https://github.com/frozenmm/frozenmm'


def document(page: str) -> str:
    """The address of a page of the documentation, for messages: an installed package has no docs folder."""
    return f'{PROJECT_URL}/blob/main/docs/{page}.md'
