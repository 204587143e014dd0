"""Reading what others wrote, checked entry by entry: nothing is dropped on the way without being counted.

What the stages work on: JSON lines of gainrag's records, DPR's corpus and retrieval results.

    reading.py    read_passages, read_questions, read_retrieved

The six data sets of the paper as their makers released them, which `ingest` turns into such files.

    official.py   ingest: a file, a folder or the hub's copy -> questions, and the passages they come with
    releases.py   the table: official file names, the same data on the hub, the format
    formats.py    what an entry of each format looks like, and the questions and passages in it
    files.py      official files -> entries
    hub.py        hub data sets  -> the same entries

Files in other known formats, and tables of any columns.

    conversion.py  convert: a file or folder -> questions.jsonl and corpus.jsonl, row by row
    foreign.py     the formats: what a row of each holds
    tables.py      JSON lines, CSV, Parquet -> rows; columns under our names
    names.py       others' names for what a record of gainrag has

A folder of documents, in the room documents/.
"""

from gainrag.ingestion.conversion import Converted, convert
from gainrag.ingestion.documents import Documents, ingest_documents
from gainrag.ingestion.foreign import Format
from gainrag.ingestion.official import Ingested, ingest
from gainrag.ingestion.reading import read_passages, read_questions, read_retrieved
from gainrag.ingestion.releases import RELEASES

__all__ = [
    "RELEASES",
    "Converted",
    "Documents",
    "Format",
    "Ingested",
    "convert",
    "ingest",
    "ingest_documents",
    "read_passages",
    "read_questions",
    "read_retrieved",
]
