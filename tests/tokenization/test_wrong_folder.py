"""A folder that holds no tokenizer is named in the refusal: mostly a checkpoint of training, or a typing error."""

from pathlib import Path

import pytest

from hf_mobility import MstarTokenizer, RawTokenizer, SamoeTokenizer


@pytest.mark.parametrize("tokenizer", [MstarTokenizer, RawTokenizer, SamoeTokenizer])
def test_a_folder_without_a_tokenizer_is_named(tokenizer: type, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^'{tmp_path}' has no .*; a {tokenizer.__name__} is a "):
        tokenizer.from_pretrained(tmp_path)
