"""A folder of documents -> a corpus: every file's text in passages that fit, or the reason why it gave none.

folder.py       ingest_documents: the folder's files, what is new among them, and the corpus that is written
texts.py        a file's bytes -> blocks: its characters, and the reader that its name asks for
markdown.py  rst.py  html.py    the readers; PDF and Office files become Markdown by markitdown, an extra
blocks.py       headings, text, code, tables
passages.py     blocks -> passages under "Page > Section"
tokens.py       how long a text is for a model
duplicates.py   near-duplicate passages
store.py        what was read before, so that a second run reads what has changed
"""

from gainrag.ingestion.documents.folder import Documents, ingest_documents
from gainrag.ingestion.documents.texts import is_readable

__all__ = ["Documents", "ingest_documents", "is_readable"]
