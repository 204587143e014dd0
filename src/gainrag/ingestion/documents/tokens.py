"""How many tokens a text has for a model, at the speed of looking words up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gainrag.models.folder import resolve
from gainrag.models.loading import load_tokenizer

# Words whose counts are remembered; a gigabyte of text has more, and the usual ones are learned again at once.
_REMEMBERED = 500_000


class TokenCount(dict[str, int]):
    """The tokens of a text, by what stands between white space: each word is tokenized once.

    Exact for the tokenizers of encoders such as BERT's, which split at white space first; for others that is the
    number without tokens for white space itself. Call it with a text.
    """

    def __init__(self, model: str) -> None:
        super().__init__()
        self._encode = _encoder(model)

    def __missing__(self, word: str) -> int:
        if len(self) >= _REMEMBERED:
            self.clear()
        number = self[word] = self._encode(word)
        return number

    def __call__(self, text: str) -> int:
        """How many tokens a text has."""
        return sum(map(self.__getitem__, text.split()))


def _encoder(model: str) -> Callable[[str], int]:
    """The number of a word's tokens by a model's tokenizer.

    Raises:
        ModelError: there is no such model, or it has no tokenizer.
    """
    file = Path(resolve(model)) / "tokenizer.json"
    if file.is_file():
        # Without transformers, which takes seconds to import.
        from tokenizers import Tokenizer

        fast = Tokenizer.from_file(str(file))
        fast.no_truncation()
        fast.no_padding()
        return lambda word: len(fast.encode(word, add_special_tokens=False).ids)
    slow = load_tokenizer(resolve(model))
    return lambda word: len(slow(word, add_special_tokens=False)["input_ids"])
