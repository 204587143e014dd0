"""The folder of a selector, wherever it comes from: this machine, the package, or the model hub."""

from __future__ import annotations

from pathlib import Path

from gainrag.models.folder import resolve
from gainrag.models.hub import check_reachable, loading_errors

# The file by which a feature selector's folder is known, and those of all kinds: a cross-encoder's is the first.
FEATURES_FILE = "features.json"
SELECTOR = ("config.json", FEATURES_FILE)

# What is fetched of a selector: weights, tokenizer, what was learned beside them, and the card. Not the copies for
# other runtimes, of which rerankers have many.
_WANTED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "README.md")


def selector_folder(model: str) -> str:
    """The local folder of a selector.

    One of the hub is fetched whole, into the hub's cache: its calibration and its trees are files that no library asks
    for by itself.

    Args:
        model: a folder, embedded:NAME, or a Hugging Face id. What can only be a folder's name is returned as it is,
            whether or not there is one.

    Raises:
        ModelError: there is no such embedded model; the hub cannot be reached, or has no such selector.
    """
    path = resolve(model)
    if Path(path).exists() or path.startswith(("/", ".", "~")) or path.count("/") > 1:
        return path
    from huggingface_hub import snapshot_download

    with loading_errors(model):
        check_reachable(path, SELECTOR)
        return snapshot_download(path, allow_patterns=list(_WANTED), ignore_patterns=["onnx/*", "openvino/*"])
